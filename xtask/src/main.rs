//! Chores of this workspace: `cargo xtask tidy`, `cargo xtask bench`.

mod bench;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Chores of the Enclave workspace")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Check the rules of the tree: which crate may depend on which, file lengths, names that do not belong here.
    Tidy,
    Bench(bench::BenchArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().chore {
        Chore::Tidy => tidy::run(),
        Chore::Bench(args) => bench::run(&args),
    }
}
