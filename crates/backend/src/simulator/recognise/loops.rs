//! Blocks: loops whose length can be read off, endless loops and what grows in them, and blocks that simply run.

use std::time::Duration;

use protocol::Stream;

use super::{Instruction, NotUnderstood, Reader, Statement, ends, number, text};

/// What all loops of a source together may be rolled out into. Longer ones are modelled by their sum.
const ROLLED_OUT: u64 = 10_000;
/// Bytes in an instruction that count as much as one more of them.
const BYTES_OF_ONE: u64 = 256;

/// How often a loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    So(u64),
    Endless,
}

impl Reader {
    pub(super) fn compound(&mut self, header: &str, body: &[Statement]) -> Result<(), NotUnderstood> {
        let bare: String = header.chars().filter(|char| !char.is_whitespace()).collect();
        let runs = matches!(bare.as_str(), "try" | "finally" | "if__name__=='__main__'" | "if__name__==\"__main__\"")
            || header.starts_with("with ");
        if runs {
            self.block(body);
            return Ok(());
        }
        match times(header, &bare).ok_or(NotUnderstood)? {
            Times::So(times) => self.repeat(body, times),
            Times::Endless => self.forever(body),
        }
    }

    fn repeat(&mut self, body: &[Statement], times: u64) -> Result<(), NotUnderstood> {
        let mut part = self.part();
        part.block(body);
        self.missed.append(&mut part.missed);
        self.rolled_out = part.rolled_out;
        let once = part.instructions;
        let cost = times.saturating_mul(once.iter().map(weight).sum());
        if times == 0 {
            return Ok(());
        }
        if let Some(again) = part.again {
            self.again = Some(self.instructions.len() + again);
            self.instructions.extend(once);
        } else if once.last().is_some_and(ends) {
            self.instructions.extend(once);
        } else if cost <= ROLLED_OUT.saturating_sub(self.rolled_out) {
            self.rolled_out += cost;
            for _ in 0..times {
                self.instructions.extend(once.iter().cloned());
            }
        } else {
            let sum: Option<Vec<_>> = once.into_iter().map(|instruction| multiply(instruction, times)).collect();
            self.instructions.extend(sum.ok_or(NotUnderstood)?);
        }
        Ok(())
    }

    /// A loop without an end either takes its time, or grows until a limit stops it, or spins.
    pub(super) fn forever(&mut self, body: &[Statement]) -> Result<(), NotUnderstood> {
        let mut texts = Vec::new();
        flatten(body, &mut texts);
        if texts.iter().any(|text| text.starts_with("break") || text.starts_with("return")) {
            return Err(NotUnderstood);
        }
        let mut part = self.part();
        part.block(body);
        self.rolled_out = part.rolled_out;
        if part.again.is_some()
            || part.instructions.iter().any(takes_time)
            || part.instructions.last().is_some_and(ends)
        {
            self.missed.append(&mut part.missed);
            let start = self.instructions.len();
            self.instructions.extend(part.instructions);
            if !self.instructions.last().is_some_and(ends) {
                self.again = Some(start + part.again.unwrap_or(0));
            }
        } else if let Some(growth) = growth(&texts) {
            self.push(growth);
        } else {
            self.missed.append(&mut part.missed);
            self.push(Instruction::Cpu(None));
        }
        Ok(())
    }
}

fn times(header: &str, bare: &str) -> Option<Times> {
    let endless = ["whileTrue", "while1", "while(True)", "while(1)", "while(true)", "for(;;)", "while!0"];
    if endless.contains(&bare) {
        return Some(Times::Endless);
    }
    let rest = header.strip_prefix("for")?.trim();
    if let Some((_, over)) = rest.split_once(" in ") {
        let over = over.trim();
        if over == "iter(int, 1)" || text::any_call(over, &["itertools.count", "count"]).is_some() {
            return Some(Times::Endless);
        }
        let bounds = text::call(over, "range")?;
        return match bounds[..] {
            [end] => number::size(end).map(Times::So),
            [start, end] => Some(Times::So(number::size(end)?.saturating_sub(number::size(start)?))),
            _ => None,
        };
    }
    // for (let i = 0; i < 10; i++)
    let inner = rest.strip_prefix('(')?.strip_suffix(')')?;
    let [first, condition, step] = text::cut(inner, ';')[..] else { return None };
    let (name, start) = text::assignment(first)?;
    let counts = [format!("{name}++"), format!("++{name}"), format!("{name} += 1")].iter().any(|known| known == step);
    let end = condition.strip_prefix(name)?.trim_start().strip_prefix('<')?;
    let (end, inclusive) = match end.strip_prefix('=') {
        Some(end) => (end, 1),
        None => (end, 0),
    };
    let end = if end.trim() == "Infinity" { u64::MAX } else { number::size(end)? };
    counts.then_some(Times::So(end.saturating_sub(number::size(start)?).saturating_add(inclusive)))
}

/// What is certain to take at least a millisecond; a loop without it would not let anybody else run.
fn takes_time(instruction: &Instruction) -> bool {
    let (Instruction::Sleep(time) | Instruction::Cpu(Some(time))) = instruction else { return false };
    *time >= Duration::from_millis(1)
}

fn weight(instruction: &Instruction) -> u64 {
    let (Instruction::Write(_, bytes) | Instruction::Result(bytes) | Instruction::Save { data: bytes, .. }) =
        instruction
    else {
        return 1;
    };
    1 + bytes.len() as u64 / BYTES_OF_ONE
}

/// So many times the same, at once.
fn multiply(instruction: Instruction, times: u64) -> Option<Instruction> {
    let duration = |one: Duration| one.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX));
    let count = |one: u32| u32::try_from(u64::from(one).saturating_mul(times)).unwrap_or(u32::MAX);
    Some(match instruction {
        Instruction::Write(stream, data) => Instruction::Flood(stream, times.saturating_mul(data.len() as u64)),
        Instruction::Flood(stream, bytes) => Instruction::Flood(stream, times.saturating_mul(bytes)),
        Instruction::Sleep(time) => Instruction::Sleep(duration(time)),
        Instruction::Cpu(time) => Instruction::Cpu(time.map(duration)),
        Instruction::Memory(bytes) => Instruction::Memory(times.saturating_mul(bytes)),
        Instruction::Disk(bytes) => Instruction::Disk(times.saturating_mul(bytes)),
        Instruction::Save { data, .. } => Instruction::Disk(times.saturating_mul(data.len() as u64)),
        Instruction::Fork(one) => Instruction::Fork(count(one)),
        Instruction::Threads(one) => Instruction::Threads(count(one)),
        // Only the last one counts, and these end the program or the loop.
        Instruction::Result(_)
        | Instruction::Mirror
        | Instruction::Exit(_)
        | Instruction::Signal(_)
        | Instruction::Raise { .. }
        | Instruction::Hang => instruction,
        Instruction::Connect(..)
        | Instruction::Request { .. }
        | Instruction::Invoke { .. }
        | Instruction::Name(..)
        | Instruction::Need { .. }
        | Instruction::Read(_)
        | Instruction::Cat(_)
        | Instruction::Frame(_) => return None,
    })
}

fn flatten<'a>(statements: &'a [Statement], texts: &mut Vec<&'a str>) {
    for statement in statements {
        texts.push(&statement.text);
        flatten(statement.body.as_deref().unwrap_or_default(), texts);
    }
}

/// What an endless loop uses up, told by the calls in it.
fn growth(texts: &[&str]) -> Option<Instruction> {
    let any = |marks: &[&str]| texts.iter().any(|text| marks.iter().any(|mark| text.contains(mark)));
    let writes = |text: &&str| {
        let calls = ["print(", "console.log(", "console.error(", "stdout.write(", "stderr.write("];
        calls.iter().any(|call| text.contains(call))
    };
    let fills = |text: &&str| {
        let calls = [".write(", "writeFileSync(", "appendFileSync(", "writeSync("];
        !writes(text) && calls.iter().any(|call| text.contains(call))
    };
    let swells = |text: &&str| text.split_once("+=").is_some_and(|(_, by)| number::evaluate(by.trim()).is_none());
    if any(&["os.fork(", "Popen(", "subprocess.", "Process(", "child_process", "spawn(", ".fork(", "exec("]) {
        Some(Instruction::Fork(u32::MAX))
    } else if any(&["Thread(", "Worker(", "start_new_thread("]) {
        Some(Instruction::Threads(u32::MAX))
    } else if texts.iter().any(fills) {
        Some(Instruction::Disk(u64::MAX))
    } else if any(&[".append(", ".push(", ".extend(", "bytearray(", "Buffer.alloc"]) || texts.iter().any(swells) {
        Some(Instruction::Memory(u64::MAX))
    } else {
        let text = texts.iter().find(|text| writes(text))?;
        let stream =
            if text.contains("stderr") || text.contains("console.error") { Stream::Stderr } else { Stream::Stdout };
        Some(Instruction::Flood(stream, u64::MAX))
    }
}
