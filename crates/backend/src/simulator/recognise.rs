//! What can be told of a program that has no script: common calls, recognised line by line.
//!
//! Nothing is evaluated. A call counts when its arguments are literals; a loop counts when its end can be read off its
//! first line, or when it plainly has none. Every other line is counted, and the program says so on stderr.

mod calls;
mod literal;
mod loops;
mod node;
mod number;
mod python;
mod text;

use std::collections::BTreeSet;

use model::Language;
use protocol::Stream;

use super::program::{Instruction, Program};

/// How deep blocks, and programs inside of calls, may be nested; what is deeper is not understood.
const MAX_DEPTH: usize = 32;

/// A statement of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    /// Its first line, counted from 1, and how many lines it has without its body.
    line: usize,
    lines: usize,
    /// Without comments, line breaks and what ends it; of a block, what stands before the body.
    text: String,
    /// Of a block.
    body: Option<Vec<Statement>>,
}

/// Recognises what it can.
pub(super) fn read(source: &str, language: Language, has_way_out: bool) -> Program {
    let mut reader = Reader { has_way_out, ..Reader::new(language) };
    reader.block(&split(source, language));
    let Reader { mut instructions, mut again, missed, .. } = reader;
    if !missed.is_empty() {
        let (count, were) = (missed.len(), if missed.len() == 1 { "line was" } else { "lines were" });
        let notice = format!("simulator: this is a model; {count} {were} not understood\n");
        instructions.insert(0, Instruction::Write(Stream::Stderr, notice.into_bytes()));
        again = again.map(|at| at + 1);
    }
    Program { instructions, again }
}

fn split(source: &str, language: Language) -> Vec<Statement> {
    match language {
        Language::Python => python::split(source),
        Language::Node => node::split(source),
    }
}

/// A reading that is under way.
#[derive(Debug)]
struct Reader {
    language: Language,
    /// Whether calls that use the network are looked for.
    has_way_out: bool,
    instructions: Vec<Instruction>,
    again: Option<usize>,
    missed: BTreeSet<usize>,
    depth: usize,
    /// What loops were rolled out into so far, over the whole source.
    rolled_out: u64,
}

/// A statement has no place in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NotUnderstood;

impl Reader {
    fn new(language: Language) -> Self {
        Self {
            language,
            has_way_out: false,
            instructions: Vec::new(),
            again: None,
            missed: BTreeSet::new(),
            depth: 0,
            rolled_out: 0,
        }
    }

    /// A reader for a part of the program.
    fn part(&self) -> Self {
        let has_way_out = self.has_way_out;
        Self { depth: self.depth + 1, rolled_out: self.rolled_out, has_way_out, ..Self::new(self.language) }
    }

    fn block(&mut self, statements: &[Statement]) {
        for statement in statements {
            if self.is_over() {
                return;
            }
            if self.statement(statement).is_err() {
                self.miss(statement);
            }
        }
    }

    /// Whether nothing of the rest is ever reached.
    fn is_over(&self) -> bool {
        self.again.is_some() || self.instructions.last().is_some_and(ends)
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), NotUnderstood> {
        match &statement.body {
            Some(body) => self.compound(&statement.text, body),
            None => self.simple(statement),
        }
    }

    fn miss(&mut self, statement: &Statement) {
        self.missed.extend(statement.line..statement.line + statement.lines);
        for inner in statement.body.iter().flatten() {
            self.miss(inner);
        }
    }

    fn push(&mut self, instruction: Instruction) {
        self.instructions.push(instruction);
    }
}

/// Whether a program does nothing after this.
fn ends(instruction: &Instruction) -> bool {
    match instruction {
        Instruction::Cpu(cpu) => cpu.is_none(),
        Instruction::Exit(_) | Instruction::Signal(_) | Instruction::Raise { .. } | Instruction::Hang => true,
        Instruction::Flood(_, bytes) | Instruction::Memory(bytes) | Instruction::Disk(bytes) => *bytes == u64::MAX,
        Instruction::Fork(count) | Instruction::Threads(count) => *count == u32::MAX,
        Instruction::Write(..)
        | Instruction::Sleep(_)
        | Instruction::Save { .. }
        | Instruction::Result(_)
        | Instruction::Mirror
        | Instruction::Connect(..)
        | Instruction::Request { .. }
        | Instruction::Invoke { .. }
        | Instruction::Name(..)
        | Instruction::Need { .. }
        | Instruction::Read(_)
        | Instruction::Cat(_)
        | Instruction::Frame(_) => false,
    }
}

#[cfg(test)]
mod tests;
