//! Constant numbers: `1_000`, `0x40`, `64 * 1024 ** 2`, `1 << 30`, `1e9`.

use std::{iter::Peekable, str::Chars};

/// Longer expressions are not worth understanding.
const MAX_LEN: usize = 100;

/// The value, if the text is nothing but a constant expression.
pub(super) fn evaluate(text: &str) -> Option<f64> {
    if text.len() > MAX_LEN {
        return None;
    }
    let mut rest = Rest { chars: text.chars().peekable() };
    let value = rest.shift()?;
    (rest.peek().is_none() && value.is_finite()).then_some(value)
}

/// A count or a size: not negative, and the largest there is when it is larger.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as wanted")]
pub(super) fn size(text: &str) -> Option<u64> {
    evaluate(text).filter(|value| *value >= 0.0).map(|value| value as u64)
}

struct Rest<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Rest<'_> {
    fn peek(&mut self) -> Option<char> {
        while self.chars.next_if(|char| char.is_whitespace()).is_some() {}
        self.chars.peek().copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        self.peek() == Some(wanted) && self.chars.next().is_some()
    }

    fn shift(&mut self) -> Option<f64> {
        let mut value = self.sum()?;
        while self.take('<') {
            if !self.take('<') {
                return None;
            }
            value *= self.sum()?.exp2();
        }
        Some(value)
    }

    fn sum(&mut self) -> Option<f64> {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value += self.product()?;
            } else if self.take('-') {
                value -= self.product()?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.power()?;
        loop {
            if self.take('*') {
                value *= self.power()?;
            } else if self.take('/') {
                let floor = self.take('/');
                value /= self.power()?;
                value = if floor { value.floor() } else { value };
            } else {
                return Some(value);
            }
        }
    }

    fn power(&mut self) -> Option<f64> {
        let base = self.atom()?;
        let mut ahead = self.chars.clone();
        while ahead.next_if(|char| char.is_whitespace()).is_some() {}
        if ahead.next() == Some('*') && ahead.next() == Some('*') {
            self.chars = ahead;
            return Some(base.powf(self.power()?));
        }
        Some(base)
    }

    fn atom(&mut self) -> Option<f64> {
        if self.take('(') {
            let value = self.shift()?;
            return self.take(')').then_some(value);
        }
        if self.take('-') {
            return self.atom().map(|value| -value);
        }
        self.peek()?;
        let mut digits = String::new();
        while let Some(char) = self.chars.next_if(|char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_')) {
            if char != '_' {
                digits.push(char.to_ascii_lowercase());
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "sizes need no more than 53 bits")]
        if let Some(hex) = digits.strip_prefix("0x") {
            return u64::from_str_radix(hex, 16).ok().map(|value| value as f64);
        }
        // What else Rust takes for a number (inf, nan) starts with a letter.
        if digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
            digits.parse().ok()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_evaluated_with_the_usual_precedence() {
        for (text, value) in [
            ("1_000", 1000.0),
            ("0x40", 64.0),
            ("8 * 1024 ** 2", 8_388_608.0),
            ("2 ** 3 ** 2", 512.0),
            ("1 << 10", 1024.0),
            ("(1 + 2) * 3 - 10 // 4", 7.0),
            ("1e3", 1000.0),
            ("-0.5", -0.5),
        ] {
            assert_eq!(evaluate(text), Some(value), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none_and_nothing_is_too_large() {
        for text in ["", "n", "1 +", "inf", "nan", "1 < 2", "(1", "1 2", "10 ** 999", &"(".repeat(99)] {
            assert_eq!(evaluate(text), None, "{text}");
        }
        assert_eq!(size("10 ** 30"), Some(u64::MAX));
        assert_eq!(size("-1"), None);
    }
}
