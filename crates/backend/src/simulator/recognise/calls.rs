//! Calls that are recognised.

use std::time::Duration;

use model::Language;
use protocol::Stream;
use serde_json::Value;

use super::{
    super::program::Reach, Instruction, MAX_DEPTH, NotUnderstood, Reader, Statement, literal, number, split, text,
};

const SIGNALS: [(&str, u8); 8] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGABRT", 6),
    ("SIGKILL", 9),
    ("SIGSEGV", 11),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
];

type Understood = Result<(), NotUnderstood>;

impl Reader {
    pub(super) fn simple(&mut self, statement: &Statement) -> Understood {
        let text = statement.text.strip_prefix("await ").unwrap_or(&statement.text).trim();
        let tries: [fn(&mut Self, &str, usize) -> Understood; 9] = [
            |reader, text, line| reader.network(text, line),
            |reader, text, _| reader.harmless(text),
            |reader, text, _| reader.output(text),
            |reader, text, _| reader.result(text),
            |reader, text, _| reader.pause(text),
            |reader, text, line| reader.end(text, line),
            |reader, text, _| reader.offspring(text),
            |reader, text, _| reader.file(text),
            |reader, text, _| reader.memory(text),
        ];
        tries.into_iter().find_map(|understand| understand(self, text, statement.line).ok()).ok_or(NotUnderstood)
    }

    /// Imports, constants, and what changes nothing that is modelled.
    fn harmless(&self, text: &str) -> Understood {
        let words = ["pass", "continue", "sys.stdout.flush()", "'use strict'", "\"use strict\""];
        let known = words.contains(&text)
            || ["import ", "from "].iter().any(|word| text.starts_with(word))
            || self.literal(text).is_some_and(|value| value.is_string());
        let value = |value: &str| {
            let made = ["require", "signal.signal", "open", "fs.openSync"];
            self.literal(value).is_some() || number::evaluate(value).is_some() || text::any_call(value, &made).is_some()
        };
        let bound = declared(text).is_some_and(value);
        if known || bound { Ok(()) } else { Err(NotUnderstood) }
    }

    /// What reaches out, by a literal address.
    fn network(&mut self, text: &str, line: usize) -> Understood {
        if !self.has_way_out {
            return Err(NotUnderstood);
        }
        let text = declared(text).unwrap_or(text);
        let text = text.strip_prefix("await ").unwrap_or(text).trim();
        let requests: &[&str] = match self.language {
            Language::Python => &["urllib.request.urlopen", "urlopen", "requests.get", "httpx.get"],
            Language::Node => &["fetch"],
        };
        let (reach, to) = if let Some(arguments) = text::any_call(text, requests) {
            let url = arguments.first().and_then(|url| self.words(url)).ok_or(NotUnderstood)?;
            (Reach::Http, url)
        } else {
            let arguments = text::any_call(text, &["socket.create_connection", "create_connection"]);
            let address = arguments.and_then(|arguments| Some(*arguments.first()?)).ok_or(NotUnderstood)?;
            let inner = address.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).ok_or(NotUnderstood)?;
            let [host, port] = text::cut(inner, ',')[..] else { return Err(NotUnderstood) };
            let host = self.words(host).ok_or(NotUnderstood)?;
            let port = number::size(port).ok_or(NotUnderstood)?;
            (Reach::Tcp, if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
        };
        self.push(Instruction::Need { reach, to, line });
        Ok(())
    }

    fn output(&mut self, text: &str) -> Understood {
        let (raw, stream) = if let Some(arguments) = text::any_call(text, &["sys.stdout.write", "process.stdout.write"])
        {
            (arguments, Stream::Stdout)
        } else if let Some(arguments) = text::any_call(text, &["sys.stderr.write", "process.stderr.write"]) {
            (arguments, Stream::Stderr)
        } else {
            return self.print(text);
        };
        let [argument] = raw[..] else { return Err(NotUnderstood) };
        self.write(stream, argument, "")
    }

    fn print(&mut self, text: &str) -> Understood {
        let (mut stream, mut end, mut said) = (Stream::Stdout, "\n".to_owned(), Vec::new());
        let arguments = match self.language {
            Language::Python => text::call(text, "print"),
            Language::Node => text::any_call(text, &["console.log", "console.info"]).or_else(|| {
                stream = Stream::Stderr;
                text::any_call(text, &["console.error", "console.warn"])
            }),
        };
        for argument in arguments.ok_or(NotUnderstood)? {
            match text::assignment(argument).filter(|_| self.language == Language::Python) {
                None => said.push(argument),
                Some(("flush", _) | ("file", "sys.stdout")) => {}
                Some(("file", "sys.stderr")) => stream = Stream::Stderr,
                Some(("end", value)) => end = self.words(value).ok_or(NotUnderstood)?,
                Some(_) => return Err(NotUnderstood),
            }
        }
        if let [argument] = said[..] {
            return self.write(stream, argument, &end);
        }
        let words: Option<Vec<_>> = said.into_iter().map(|argument| self.words(argument)).collect();
        let line = words.ok_or(NotUnderstood)?.join(" ") + &end;
        self.push(Instruction::Write(stream, line.into_bytes()));
        Ok(())
    }

    fn write(&mut self, stream: Stream, argument: &str, end: &str) -> Understood {
        if let Some(words) = self.words(argument) {
            self.push(Instruction::Write(stream, (words + end).into_bytes()));
        } else {
            let bytes = self.repeated(argument).ok_or(NotUnderstood)?;
            self.push(Instruction::Flood(stream, bytes.saturating_add(end.len() as u64)));
        }
        Ok(())
    }

    fn result(&mut self, text: &str) -> Understood {
        let arguments = text::call(text, "enclave.result").ok_or(NotUnderstood)?;
        let [argument] = arguments[..] else { return Err(NotUnderstood) };
        let value = self.literal(argument).ok_or(NotUnderstood)?;
        self.push(Instruction::Result(value.to_string().into_bytes()));
        Ok(())
    }

    fn pause(&mut self, text: &str) -> Understood {
        if let Some([seconds]) = text::any_call(text, &["time.sleep", "sleep"]).as_deref() {
            let seconds = number::evaluate(seconds).ok_or(NotUnderstood)?;
            self.push(Instruction::Sleep(Duration::try_from_secs_f64(seconds).map_err(|_| NotUnderstood)?));
            return Ok(());
        }
        let promised = text::call(text, "new Promise").and_then(|arguments| arguments.first()?.split_once("=>"));
        if let Some((_, inner)) = promised {
            let (_, wait) = timer(inner.trim(), "setTimeout").ok_or(NotUnderstood)?;
            self.push(Instruction::Sleep(wait));
            return Ok(());
        }
        if let Some((then, wait)) = timer(text, "setTimeout") {
            self.push(Instruction::Sleep(wait));
            return self.called_back(then);
        }
        let (then, wait) = timer(text, "setInterval").ok_or(NotUnderstood)?;
        let start = self.instructions.len();
        self.push(Instruction::Sleep(wait.max(Duration::from_millis(1))));
        self.called_back(then)?;
        self.again = self.again.or(Some(start));
        Ok(())
    }

    /// `() => call()` and `() => { calls }`.
    fn called_back(&mut self, then: &str) -> Understood {
        let body = then.strip_prefix("() =>").or_else(|| then.strip_prefix("()=>")).ok_or(NotUnderstood)?.trim();
        if self.depth > MAX_DEPTH / 4 {
            return Err(NotUnderstood);
        }
        let mut part = self.part();
        part.block(&split(body, self.language));
        self.rolled_out = part.rolled_out;
        if !part.missed.is_empty() {
            return Err(NotUnderstood);
        }
        self.again = part.again.map(|again| self.instructions.len() + again);
        self.instructions.extend(part.instructions);
        Ok(())
    }

    fn end(&mut self, text: &str, line: usize) -> Understood {
        let exits = ["sys.exit", "exit", "quit", "os._exit", "process.exit", "raise SystemExit"];
        if let Some(arguments) = text::any_call(text, &exits) {
            let code = match arguments[..] {
                [] => Some(0),
                [code] => number::size(code),
                _ => None,
            };
            let code = code.ok_or(NotUnderstood)? & 0xff;
            self.push(Instruction::Exit(u8::try_from(code).expect("eight bits are left")));
            return Ok(());
        }
        let signal = match text::any_call(text, &["os.kill", "process.kill"]).as_deref() {
            Some(["os.getpid()" | "process.pid", signal]) => signal_number(signal),
            _ => text::any_call(text, &["os.abort", "process.abort"]).map(|_| 6),
        };
        if let Some(signal) = signal {
            self.push(Instruction::Signal(signal));
            return Ok(());
        }
        let thrown = match self.language {
            Language::Python => text.strip_prefix("raise "),
            Language::Node => text.strip_prefix("throw ").map(|thrown| thrown.trim_start_matches("new ")),
        };
        let thrown = thrown.ok_or(NotUnderstood)?.trim();
        let (kind, message) = match thrown.split_once('(') {
            Some((kind, _)) => match text::call(thrown, kind).ok_or(NotUnderstood)?[..] {
                [] => (kind, None),
                [message] => (kind, Some(self.words(message).ok_or(NotUnderstood)?)),
                _ => return Err(NotUnderstood),
            },
            None => (thrown, None),
        };
        if !text::is_name(kind) {
            return Err(NotUnderstood);
        }
        let text = message.map_or_else(|| kind.to_owned(), |message| format!("{kind}: {message}"));
        self.push(Instruction::Raise { text, line });
        Ok(())
    }

    fn offspring(&mut self, text: &str) -> Understood {
        let text = declared(text).unwrap_or(text);
        let text = text.strip_suffix(".start()").unwrap_or(text);
        let forks = ["os.fork", "subprocess.Popen", "multiprocessing.Process", "Process", "spawn", "fork"];
        let threads = ["threading.Thread", "Thread", "new Worker", "_thread.start_new_thread"];
        let nested = text.strip_prefix("require('child_process').").or_else(|| text.strip_prefix("child_process."));
        if text::any_call(nested.unwrap_or(text), &forks).is_some() {
            self.push(Instruction::Fork(1));
        } else if text::any_call(text, &threads).is_some() {
            self.push(Instruction::Threads(1));
        } else {
            return Err(NotUnderstood);
        }
        Ok(())
    }

    /// `open(…).write(…)`, `file.write(…)`, `fs.writeFileSync(…)`.
    fn file(&mut self, text: &str) -> Understood {
        let (mut path, mut append) = (None, false);
        let content = if let Some((file, content)) = text.rsplit_once(".write(") {
            if let Some([name, mode, ..]) = text::any_call(file, &["open"]).as_deref() {
                path = self.words(name);
                append = self.words(mode).is_some_and(|mode| mode.starts_with('a'));
            }
            content.strip_suffix(')').ok_or(NotUnderstood)?
        } else {
            let names = ["fs.writeFileSync", "fs.appendFileSync", "writeFileSync", "appendFileSync", "fs.writeSync"];
            let arguments = text::any_call(text, &names).ok_or(NotUnderstood)?;
            path = arguments.first().and_then(|name| self.words(name));
            append = text.contains("append");
            *arguments.get(1).ok_or(NotUnderstood)?
        };
        if let (Some(path), Some(words)) = (path, self.words(content)) {
            self.push(Instruction::Save { path, data: words.into_bytes(), append });
            return Ok(());
        }
        let bytes = self.words(content).map(|words| words.len() as u64).or_else(|| self.bytes_of(content));
        self.push(Instruction::Disk(bytes.ok_or(NotUnderstood)?));
        Ok(())
    }

    fn memory(&mut self, text: &str) -> Understood {
        let text = declared(text).unwrap_or(text);
        let held = [".append(", ".push("].iter().find_map(|call| text.split_once(call)?.1.strip_suffix(')'));
        let bytes = self.bytes_of(held.unwrap_or(text)).ok_or(NotUnderstood)?;
        self.push(Instruction::Memory(bytes));
        Ok(())
    }

    /// The size of a large value, by how it is made.
    fn bytes_of(&self, text: &str) -> Option<u64> {
        let calls = ["bytearray", "bytes", "Buffer.alloc", "Buffer.allocUnsafe", "new ArrayBuffer", "new Uint8Array"];
        match text::any_call(text, &calls) {
            Some(arguments) => number::size(arguments.first()?),
            None => self.repeated(text),
        }
    }

    /// The size of `"text" * 1000`, `[0] * 1000` or `"text".repeat(1000)`.
    fn repeated(&self, text: &str) -> Option<u64> {
        let (one, times) = match text.rsplit_once(".repeat(") {
            Some((one, times)) => (one, times.strip_suffix(')')?),
            None => text.split_at_checked(text::find(text, '*')?).map(|(one, times)| (one, &times[1..]))?,
        };
        let one = one.trim();
        let one = match self.literal(one.strip_prefix('b').unwrap_or(one))? {
            Value::String(text) => text.len() as u64,
            // A reference each.
            Value::Array(values) => 8 * values.len() as u64,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
        };
        Some(one.saturating_mul(number::size(times)?))
    }

    /// What a literal looks like when it is printed.
    fn words(&self, text: &str) -> Option<String> {
        match self.literal(text)? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn literal(&self, text: &str) -> Option<Value> {
        literal::parse(text, self.language)
    }
}

/// The function and the delay of `setTimeout(…)` and `setInterval(…)`.
fn timer<'a>(text: &'a str, name: &str) -> Option<(&'a str, Duration)> {
    match text::call(text, name)?[..] {
        [then] => Some((then, Duration::ZERO)),
        [then, millis] => Some((then, Duration::try_from_secs_f64(number::evaluate(millis)? / 1000.0).ok()?)),
        _ => None,
    }
}

/// The value that a name is bound to.
fn declared(text: &str) -> Option<&str> {
    text::assignment(text).map(|(_, value)| value)
}

fn signal_number(text: &str) -> Option<u8> {
    let name = text.trim_matches(['"', '\'']);
    let name = name.strip_prefix("signal.").unwrap_or(name);
    let named = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named.or_else(|| u8::try_from(number::size(text)?).ok().filter(|number| (1..=64).contains(number)))
}
