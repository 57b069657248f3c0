//! The script language: `# sim:` lines in Python, `// sim:` lines in Node. docs/simulator.md describes it.

use std::time::Duration;

use model::Language;
use protocol::Stream;

use super::program::{Instruction, Misbehaviour, Program, Reach};

/// Exit code of a script that has a mistake.
const MISTAKE: u8 = 2;
/// Mistakes that are named; a script is as hostile as any program.
const NAMED: usize = 20;

/// The program that the script describes; none when there is no script. A script with mistakes is a program that names
/// the first of them on stderr and exits with 2.
pub(super) fn read(source: &str, language: Language) -> Option<Program> {
    let (mut instructions, mut mistakes) = (Vec::new(), Vec::new());
    let lines = source.lines().enumerate().filter_map(|(at, line)| Some((at + 1, scripted(line, language)?)));
    for (line, text) in lines {
        match instruction(text, line) {
            Ok(instruction) => instructions.push(instruction),
            Err(why) => {
                mistakes.push(format!("simulator: line {line}: {why}\n"));
                if mistakes.len() == NAMED {
                    break;
                }
            }
        }
    }
    if !mistakes.is_empty() {
        let report = mistakes.concat().into_bytes();
        instructions = vec![Instruction::Write(Stream::Stderr, report), Instruction::Exit(MISTAKE)];
    }
    (!instructions.is_empty()).then_some(Program { instructions, again: None })
}

/// What follows `sim:` in a comment that takes a whole line.
fn scripted(line: &str, language: Language) -> Option<&str> {
    let comment = line.trim_start().strip_prefix(match language {
        Language::Python => "#",
        Language::Node => "//",
    })?;
    comment.trim_start().strip_prefix("sim:")
}

fn instruction(text: &str, line: usize) -> Result<Instruction, String> {
    let text = text.strip_prefix(' ').unwrap_or(text);
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = if matches!(word, "stdout" | "stderr") { rest } else { rest.trim() };
    Ok(match word.trim_end() {
        "stdout" => Instruction::Write(Stream::Stdout, unescape(rest)?),
        "stderr" => Instruction::Write(Stream::Stderr, unescape(rest)?),
        "output" => Instruction::Flood(Stream::Stdout, bytes(rest)?),
        "sleep" => Instruction::Sleep(duration(rest)?),
        "cpu" => Instruction::Cpu(Some(duration(rest)?)),
        "memory" => Instruction::Memory(bytes(rest)?),
        "fork" => Instruction::Fork(number(rest)?),
        "threads" => Instruction::Threads(number(rest)?),
        "disk" => Instruction::Disk(bytes(rest)?),
        "write" => {
            let (path, text) = rest.split_once(' ').unwrap_or((rest, ""));
            Instruction::Save { path: something(path)?.into(), data: unescape(text)?, append: false }
        }
        "result" => Instruction::Result(something(rest)?.into()),
        "mirror" => nothing(rest, Instruction::Mirror)?,
        "exit" => Instruction::Exit(number(rest)?),
        "signal" => Instruction::Signal(signal(rest)?),
        "raise" => Instruction::Raise { text: something(rest)?.into(), line },
        "connect" => {
            let (how, to) = rest.split_once(' ').unwrap_or((rest, ""));
            let reach = Reach::ALL.into_iter().find(|reach| reach.as_str() == how);
            let reach =
                reach.ok_or_else(|| format!("{} is none of {}", quote(how), list(Reach::ALL.map(Reach::as_str))))?;
            Instruction::Connect(reach, something(to.trim())?.into())
        }
        "resolve" => Instruction::Connect(Reach::Dns, something(rest)?.into()),
        "http" => {
            let [method, url] = words(rest)?;
            Instruction::Request { method, url }
        }
        "bind" => {
            let [name, method, path] = words(rest)?;
            Instruction::Invoke { name, method, path }
        }
        "dns" => {
            let [name, address] = words(rest)?;
            let address = address.parse().map_err(|_| format!("{} is no address", quote(&address)))?;
            Instruction::Name(name, address)
        }
        "read" => Instruction::Read(something(rest)?.into()),
        "cat" => Instruction::Cat(something(rest)?.into()),
        "hang" => nothing(rest, Instruction::Hang)?,
        "frame" => {
            let kinds = Misbehaviour::ALL;
            let kind = kinds.into_iter().find(|kind| kind.as_str() == rest);
            let kind =
                kind.ok_or_else(|| format!("{} is none of {}", quote(rest), list(kinds.map(Misbehaviour::as_str))))?;
            Instruction::Frame(kind)
        }
        other => return Err(format!("unknown word {}", quote(other))),
    })
}

/// The beginning of what somebody wrote, for a message.
fn quote(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

fn list<const N: usize>(words: [&str; N]) -> String {
    words.join(", ")
}

fn something(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("something is missing at the end".to_owned()) } else { Ok(text) }
}

fn words<const N: usize>(text: &str) -> Result<[String; N], String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    words.try_into().map_err(|words: Vec<String>| format!("{} words instead of {N}", words.len()))
}

fn nothing(text: &str, instruction: Instruction) -> Result<Instruction, String> {
    if text.is_empty() { Ok(instruction) } else { Err(format!("unexpected {}", quote(text))) }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{} is not a number that fits here", quote(text)))
}

fn signal(text: &str) -> Result<u8, String> {
    let signal = number(text)?;
    if (1..=64).contains(&signal) { Ok(signal) } else { Err("signals go from 1 to 64".to_owned()) }
}

/// Digits and a unit.
fn quantity(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = units.iter().find(|(name, _)| *name == unit);
    let (_, factor) = factor.ok_or_else(|| {
        let known: Vec<_> = units.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        format!("{} is none of {}", quote(unit), known.join(", "))
    })?;
    number::<u64>(digits)?.checked_mul(*factor).ok_or_else(|| format!("{} is too much", quote(text)))
}

fn bytes(text: &str) -> Result<u64, String> {
    quantity(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1), ("", 1)])
}

fn duration(text: &str) -> Result<Duration, String> {
    quantity(text, &[("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)])
        .map(Duration::from_micros)
}

/// `\n`, `\t`, `\r`, `\\` and `\xHH`; everything else stands for itself.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or("\\x needs two hexadecimal digits")?
            }
            _ => return Err("a backslash stands before n, t, r, x or another backslash".to_owned()),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(source: &str) -> Vec<Instruction> {
        read(source, Language::Python).map(|program| program.instructions).unwrap_or_default()
    }

    #[test]
    fn only_whole_line_comments_of_the_language_are_a_script() {
        assert_eq!(python("import os\n   #sim: hang\n"), [Instruction::Hang]);
        for source in ["// sim: hang", "x = 1 # sim: hang", "# simulate: hang", ""] {
            assert_eq!(read(source, Language::Python), None, "{source}");
        }
        assert!(read("// sim: hang", Language::Node).is_some());
    }

    #[test]
    fn text_is_taken_as_it_stands_and_escapes_make_bytes() {
        assert_eq!(
            python("# sim: stdout  two  spaces \\\\ \\n\n# sim: stderr \\xff\\x41\n# sim: stdout"),
            [
                Instruction::Write(Stream::Stdout, b" two  spaces \\ \n".to_vec()),
                Instruction::Write(Stream::Stderr, vec![0xff, b'A']),
                Instruction::Write(Stream::Stdout, Vec::new()),
            ]
        );
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!(
            python("# sim: memory 64GiB\n# sim: disk 7\n# sim: sleep 1m\n# sim: cpu 250us"),
            [
                Instruction::Memory(64 << 30),
                Instruction::Disk(7),
                Instruction::Sleep(Duration::from_mins(1)),
                Instruction::Cpu(Some(Duration::from_micros(250))),
            ]
        );
    }

    #[test]
    fn every_mistake_is_named_with_its_line_and_nothing_else_happens() {
        let source = "# sim: stdout fine\n# sim: dance\n# sim: sleep 5\n# sim: memory 99999999TiB\n# sim: exit 256\n\
            # sim: signal 0\n# sim: frame nice\n# sim: connect smoke x\n# sim: connect tcp\n# sim: hang on\n\
            # sim: stdout \\q\n# sim: result\n# sim: http GET\n# sim: bind x GET / y\n# sim: dns x y";
        let [Instruction::Write(Stream::Stderr, text), Instruction::Exit(2)] = &python(source)[..] else {
            panic!("not a report of mistakes")
        };
        let text = String::from_utf8_lossy(text);
        let lines: Vec<_> = text.lines().map(|line| line.split(':').nth(1).unwrap().trim().to_owned()).collect();
        let expected: Vec<_> = (2..=15).map(|line| format!("line {line}")).collect();
        assert_eq!(lines, expected, "{text}");
    }
}
