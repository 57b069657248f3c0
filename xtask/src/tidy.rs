//! `cargo xtask tidy`: the rules of the tree that no compiler checks. Also a test, so that nobody has to remember it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// Which of our crates each may depend on, and what it must never pull in, directly or through others.
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    ("wire", &[], &["tokio", "axum", "sqlx"]),
    ("protocol", &[], &["tokio", "axum", "sqlx", "serde_json"]),
    ("model", &["protocol", "wire"], &["tokio", "sqlx", "reqwest", "rand"]),
    ("store", &["model", "wire"], &["axum", "kube"]),
    ("backend", &["model", "protocol", "wire"], &["sqlx", "axum", "kube"]),
    ("backend-gvisor", &["backend", "model", "protocol"], &["sqlx", "axum"]),
    ("gateway", &["model", "protocol", "wire"], &["axum", "sqlx"]),
    ("runner", &["protocol"], &["tokio", "serde_json"]),
    ("engine", &["backend", "store", "model", "protocol", "wire"], &["axum"]),
    ("api", &["engine", "model", "wire"], &[]),
    ("client", &["wire"], &["axum", "sqlx"]),
    (
        "server",
        &["api", "backend", "backend-gvisor", "client", "engine", "gateway", "model", "protocol", "store", "wire"],
        &[],
    ),
    ("xtask", &["client", "wire"], &[]),
];

/// Lines that a file may have before it wants to be two.
const MAX_LINES: usize = 500;
/// Lines in a test file.
const MAX_TEST_LINES: usize = 400;
/// Files that are longer for a reason.
const LONGER: &[(&str, &str)] = &[];

/// What says too much about one machine or one network.
const FOREIGN: &[&str] =
    &["/root/.cargo", "/root/.pyenv", "/work/", "deb.debian.org", "static.crates.io", "registry.npmjs.org", "pypi.org"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
}

#[derive(Deserialize)]
struct Dep {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// Absent for a normal dependency.
    kind: Option<String>,
}

/// Checks everything, and says every fault.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let mut faults = arrows(&metadata(root)?);
    for file in tracked(root)? {
        faults.extend(file_faults(root, &file));
    }
    ensure!(faults.is_empty(), "the tree is not tidy:\n  {}", faults.join("\n  "));
    eprintln!("tidy");
    Ok(())
}

fn metadata(root: &Path) -> anyhow::Result<Metadata> {
    let rustc = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let about = String::from_utf8_lossy(&rustc.stdout);
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    // What only other platforms need was never downloaded here.
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root)
        .output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn arrows(metadata: &Metadata) -> Vec<String> {
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let ours: BTreeSet<&str> = metadata.workspace_members.iter().map(String::as_str).collect();
    let mut faults = Vec::new();
    for id in &ours {
        let name = names[id];
        let Some((_, allowed, never)) = ARROWS.iter().find(|(known, _, _)| *known == name) else {
            faults.push(format!("crate {name} is not in the table of arrows"));
            continue;
        };
        for dep in nodes[id].deps.iter().filter(|dep| is_used(dep) && ours.contains(dep.pkg.as_str())) {
            let to = names[dep.pkg.as_str()];
            if !allowed.contains(&to) {
                faults.push(format!("crate {name} must not depend on {to}"));
            }
        }
        let reached = reached(id, &nodes);
        for package in reached.iter().map(|id| names[id]).filter(|package| never.contains(package)) {
            faults.push(format!("crate {name} must never pull in {package}"));
        }
    }
    faults
}

/// Tests may use what they like; what is built into the crate may not.
fn is_used(dep: &Dep) -> bool {
    dep.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
}

fn reached<'a>(from: &'a str, nodes: &BTreeMap<&'a str, &'a Node>) -> BTreeSet<&'a str> {
    let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
    while let Some(id) = todo.pop() {
        for dep in nodes[id].deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none())) {
            if seen.insert(dep.pkg.as_str()) {
                todo.push(&dep.pkg);
            }
        }
    }
    seen
}

fn tracked(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout)?;
    Ok(names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|name| root.join(name).is_file())
        .collect())
}

fn file_faults(root: &Path, file: &Path) -> Vec<String> {
    let shown = file.display().to_string();
    let mut faults = Vec::new();
    // Binary files and the table above have nothing to hide.
    let Ok(text) = fs::read_to_string(root.join(file)) else { return faults };
    if shown.ends_with("/mod.rs") {
        faults.push(format!("{shown}: modules are foo.rs beside foo/"));
    }
    if file.extension().is_some_and(|extension| extension == "rs") {
        let is_test = shown.contains("/tests/") || shown.ends_with("/tests.rs");
        let (lines, most) = (text.lines().count(), if is_test { MAX_TEST_LINES } else { MAX_LINES });
        if lines > most && !LONGER.iter().any(|(known, _)| *known == shown) {
            faults.push(format!("{shown}: {lines} lines want to be two files (at most {most})"));
        }
    }
    if shown != "xtask/src/tidy.rs" && shown != "Cargo.lock" {
        for foreign in FOREIGN.iter().filter(|foreign| text.contains(**foreign)) {
            faults.push(format!("{shown}: names {foreign}"));
        }
    }
    if shown.ends_with("Cargo.toml") && shown.starts_with("crates/") && !text.contains("[lints]\nworkspace = true") {
        faults.push(format!("{shown}: takes no part in the workspace's lints"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        run().unwrap();
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_found() {
        let package = |name: &str| Package { id: name.into(), name: name.into() };
        let node = |id: &str, to: &[(&str, Option<&str>)]| Node {
            id: id.into(),
            deps: to
                .iter()
                .map(|(pkg, kind)| Dep { pkg: (*pkg).into(), dep_kinds: vec![Kind { kind: kind.map(Into::into) }] })
                .collect(),
        };
        let metadata = Metadata {
            packages: ["wire", "model", "store", "tokio", "between"].map(package).into(),
            workspace_members: ["wire", "model", "store"].map(Into::into).into(),
            resolve: Resolve {
                nodes: vec![
                    node("wire", &[("model", None), ("store", Some("dev"))]),
                    node("model", &[("wire", None), ("between", None)]),
                    node("store", &[("model", None)]),
                    node("between", &[("tokio", None)]),
                    node("tokio", &[]),
                ],
            },
        };
        let mut faults = arrows(&metadata);
        faults.sort();
        assert_eq!(
            faults,
            [
                "crate model must never pull in tokio",
                "crate wire must never pull in tokio",
                "crate wire must not depend on model",
            ]
        );
    }
}
