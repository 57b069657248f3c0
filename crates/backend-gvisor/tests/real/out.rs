//! A backend whose sandboxes have a way out to a stand-in, and what comes out of them.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use backend::{Gateway, SessionBackend as _};
use model::gateway::FromGateway;
use rustix::process::Pid;

use crate::{
    stand_in::{self, Mode},
    support::{Ended, Host, Program, config, requirements},
};

/// A backend with a gateway.
pub(crate) struct Out {
    pub(crate) host: Host,
    pub(crate) binary: PathBuf,
    _dir: tempfile::TempDir,
}

pub(crate) async fn out(test: &str, mode: Mode) -> Option<Out> {
    let (runsc, image) = match requirements() {
        Ok(found) => found,
        Err(missing) => {
            println!("SKIP {test}: {missing}");
            return None;
        }
    };
    // Where the gateway's user can reach it.
    let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let binary = dir.path().join("gateway");
    let own = std::env::current_exe().unwrap();
    fs::hard_link(&own, &binary).or_else(|_| fs::copy(&own, &binary).map(drop)).unwrap();
    let mut config = config(runsc, image, dir.path().join("gvisor"));
    config.gateway = Some(stand_in::program(&binary, mode));
    Some(Out { host: Host::open(config).await, binary, _dir: dir })
}

pub(crate) fn with_way_out(mut program: Program) -> Program {
    program.gateway = Some(stand_in::spec());
    program
}

impl Out {
    /// The gateways that live.
    pub(crate) fn gateways(&self) -> Vec<Pid> {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        // Its shell has become the stand-in.
        let is_ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == self.binary);
        pids.filter(is_ours).filter_map(Pid::from_raw).collect()
    }

    /// Runs a program to its end, and gives what its gateway was asked for, in words.
    pub(crate) async fn run(&self, program: Program) -> (Ended, BTreeSet<String>) {
        let mut running = self.host.start(&with_way_out(program)).await;
        let heard = tokio::spawn(openings(running.gateway.take().unwrap()));
        let id = running.id.clone();
        // A gateway whose sandbox is removed is killed; one whose sandbox has ended tells what is left to tell.
        let told = async {
            self.host.gvisor.kill(&id).await.unwrap();
            heard.await.unwrap()
        };
        self.host.finish_after(running, told).await
    }
}

/// What the gateway says, to its end.
pub(crate) async fn openings(mut gateway: Gateway) -> BTreeSet<String> {
    let mut openings = BTreeSet::new();
    while let Some(said) = gateway.next().await {
        if let FromGateway::Event(event) = said {
            openings.insert(event.data["opening"].as_str().unwrap().to_owned());
        }
    }
    openings
}

pub(crate) fn set(openings: &[&str]) -> BTreeSet<String> {
    openings.iter().map(|&opening| opening.to_owned()).collect()
}

pub(crate) fn clean(ended: &Ended) -> &str {
    assert_eq!((ended.seen.exit, ended.seen.stderr.as_str()), (Some(0), ""), "{ended:?}");
    &ended.seen.stdout
}
