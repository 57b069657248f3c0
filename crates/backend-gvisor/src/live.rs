//! A sandbox of this process: what it is made of, what ended it, what it used.
//!
//! Everything here blocks for microseconds, but for [`Live::end`], which waits for processes to die.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use backend::{Observation, SandboxId, SandboxLimit, Termination};
use model::limits::Limits;
use rustix::process::Pid;
use tokio::sync::{Notify, watch};

use crate::{
    cgroup::{Caps, Counters, Failed, Group, Memory},
    gateway::GatewayProcess,
    identity,
    log::Log,
    observe::{self, Cause, InForce, Reading},
    process::{self, Exit},
    render::DISK_DIR,
};

/// Files in the directory of the disk that are counted. An honest runsc makes one.
const COUNTED_FILES: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: SandboxId,
    /// Its directory on the host.
    pub(crate) dir: PathBuf,
    pub(crate) group: Group,
    pub(crate) log: Log,
    /// Rings when the watcher should look again.
    pub(crate) changed: Notify,
    ended: watch::Sender<Option<Termination>>,
    /// The first limit that it was seen over, and when, whatever ended it.
    over: watch::Sender<Option<(SandboxLimit, Instant)>>,
    step: Mutex<Step>,
    fate: Mutex<Fate>,
    rest: Mutex<Rest>,
}

/// How far its making has come. Held while it is made, so that nothing is removed under the maker's hands.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// It is to be removed: nothing may be made any more.
    doomed: bool,
    processes: Option<Arc<Processes>>,
    gateway: Option<Arc<GatewayProcess>>,
    /// The end of the way out that is its gateway's, until it has one.
    pipe: Option<OwnedFd>,
}

/// What becomes of it.
#[derive(Debug, Default)]
struct Fate {
    in_force: Option<InForce>,
    /// The limits of a group that has a reserve of memory, until it is opened.
    reserve: Option<Caps>,
    reading: Reading,
    /// What ended it, if that was us.
    cause: Option<Cause>,
}

/// Whether its processes are stopped while it waits for a session.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Rest {
    #[default]
    NotYet,
    Now,
    /// It has a session.
    NoMore,
}

/// The processes of a sandbox that can become this process's children.
#[derive(Debug)]
pub(crate) struct Processes {
    pid: Pid,
    runsc: OwnedFd,
    /// The first of its users on the host, if it has its own.
    user: Option<u32>,
    exit: Mutex<Option<Exit>>,
    /// The children of runsc: the sentry, and the file server where there is one. They become ours when runsc dies
    /// before them.
    children: Mutex<Vec<(Pid, OwnedFd)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state is whole between any two statements, so a panic elsewhere has left it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    pub(crate) fn new(id: SandboxId, dir: PathBuf, group: Group) -> Self {
        Self {
            id,
            dir,
            group,
            log: Log::default(),
            changed: Notify::new(),
            ended: watch::Sender::new(None),
            over: watch::Sender::new(None),
            step: Mutex::default(),
            fate: Mutex::default(),
            rest: Mutex::default(),
        }
    }

    /// The right to make it, unless it is to be removed already.
    pub(crate) fn making(&self) -> io::Result<MutexGuard<'_, Step>> {
        let step = lock(&self.step);
        if step.doomed { Err(io::Error::other("the sandbox was removed while it was made")) } else { Ok(step) }
    }

    /// Its processes, once there are any.
    pub(crate) fn processes(&self) -> Option<Arc<Processes>> {
        lock(&self.step).processes.clone()
    }

    /// The gateway's end of the way out, once.
    pub(crate) fn take_pipe(&self) -> Option<OwnedFd> {
        lock(&self.step).pipe.take()
    }

    /// Ends its gateway. Blocks until it is gone.
    pub(crate) fn end_gateway(&self) {
        let gateway = lock(&self.step).gateway.take();
        if let Some(gateway) = gateway {
            gateway.end();
        }
    }

    /// Forbids making it. Waits for a making that is under way.
    pub(crate) fn doom(&self) {
        let mut step = lock(&self.step);
        step.doomed = true;
        if step.processes.is_none() {
            self.ended.send_replace(Some(Termination::Killed));
        }
    }

    /// Puts a session's limits into force.
    pub(crate) fn enforce(&self, caps: &Caps, limits: Limits, grace: Duration) -> Result<(), Failed> {
        self.group.limit(caps)?;
        let counters = self.group.counters().map_err(|source| Failed { step: "read cpu time", source })?;
        let mut fate = lock(&self.fate);
        fate.in_force = Some(InForce { limits, cpu_base_us: counters.cpu_us, grace });
        fate.reserve = (caps.reserve_bytes > 0).then_some(*caps);
        drop(fate);
        self.changed.notify_one();
        Ok(())
    }

    /// Looks at it now. When it is over a limit for the first time, that is remembered, and it is what ends it unless
    /// something else has.
    pub(crate) fn look(&self) -> Look {
        // After its end and the removal of its group, what was read last is what there is.
        let counters = self.group.counters().ok();
        let disk_bytes = disk_usage(&self.dir.join(DISK_DIR));
        let mut fate = lock(&self.fate);
        if let Some(counters) = counters {
            let memory_peak = counters.memory_peak.max(fate.reading.counters.memory_peak);
            let memory = counters.memory.max(fate.reading.counters.memory);
            fate.reading.counters = Counters { memory_peak, memory, ..counters };
        }
        if fate.reading.counters.memory == Memory::Short
            && let Some(caps) = fate.reserve.take()
            && let Err(Failed { step, source }) = self.group.open_reserve(&caps)
        {
            tracing::warn!(sandbox = %self.id, step, %source, "no memory to end it gently");
            fate.reading.counters.memory = Memory::Killed;
        }
        fate.reading.disk_bytes = disk_bytes;
        let found = observe::overrun(fate.in_force.as_ref(), &fate.reading);
        if let Some(limit) = found {
            let is_first = self.over.send_if_modified(|over| {
                let is_first = over.is_none();
                over.get_or_insert((limit, Instant::now()));
                is_first
            });
            if is_first {
                tracing::debug!(sandbox = %self.id, ?limit, "over a limit");
                fate.cause.get_or_insert(Cause::Exceeded(limit));
            }
        }
        let (in_force, over) = (fate.in_force.as_ref(), *self.over.borrow());
        Look {
            exceeded: over.map(|(limit, _)| limit),
            is_due: over.is_some_and(|(limit, since)| observe::is_due(in_force, &fate.reading, limit, since.elapsed())),
            pause: observe::pause(in_force, &fate.reading),
        }
    }

    /// Stops its processes until [`Self::wake`], unless that has been called already.
    pub(crate) fn rest(&self) -> Result<(), Failed> {
        let mut rest = lock(&self.rest);
        if *rest == Rest::NotYet {
            self.group.freeze(true)?;
            *rest = Rest::Now;
        }
        Ok(())
    }

    /// Lets them go on, from now on.
    pub(crate) fn wake(&self) -> Result<(), Failed> {
        let rest = std::mem::replace(&mut *lock(&self.rest), Rest::NoMore);
        if rest == Rest::Now { self.group.freeze(false) } else { Ok(()) }
    }

    /// Whether a session has it.
    pub(crate) fn is_awake(&self) -> bool {
        *lock(&self.rest) == Rest::NoMore
    }

    /// Looks, and tells.
    pub(crate) fn observation(&self) -> Observation {
        let Look { exceeded, .. } = self.look();
        let fate = lock(&self.fate);
        Observation { usage: observe::usage(fate.in_force.as_ref(), &fate.reading), exceeded }
    }

    /// Remembers that somebody asked for its end, unless something else has ended it.
    pub(crate) fn mark_killed(&self) {
        self.look();
        if self.termination().is_none() {
            lock(&self.fate).cause.get_or_insert(Cause::Killed);
        }
    }

    /// Ends every process of it, and lets go of those that had become ours. Blocks until they are gone.
    pub(crate) fn end(&self) {
        let processes = self.processes();
        if let Some(processes) = &processes {
            processes.muster(&self.group);
        }
        if !self.group.kill(process::KILL_PATIENCE) {
            tracing::warn!(sandbox = %self.id, "processes are left that SIGKILL does not end");
        }
        if let Some(processes) = &processes {
            processes.reap(&self.group);
        }
    }

    /// Says how it ended, once. Blocks until its processes are gone.
    pub(crate) fn finish(&self) {
        // While the file behind the disk may still be there.
        self.look();
        self.end();
        self.look();
        let exit = self.processes().and_then(|processes| *lock(&processes.exit));
        let termination = observe::termination(lock(&self.fate).cause, exit, &self.log.text());
        tracing::debug!(sandbox = %self.id, ?termination, "sandbox ended");
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert(termination);
            is_first
        });
    }

    /// How it ended, if it has.
    pub(crate) fn termination(&self) -> Option<Termination> {
        self.ended.borrow().clone()
    }

    /// Waits until it is over a limit.
    pub(crate) async fn overrun(&self) -> SandboxLimit {
        let mut over = self.over.subscribe();
        let over = over.wait_for(Option::is_some).await.expect("the sender is a part of self");
        over.expect("waited for").0
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> Termination {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await.expect("the sender is a part of self");
        ended.clone().expect("waited for")
    }
}

impl Step {
    /// Takes note of what was started.
    pub(crate) fn started(&mut self, processes: Arc<Processes>, pipe: Option<OwnedFd>) {
        self.processes = Some(processes);
        self.pipe = pipe;
    }

    /// Takes note of its gateway.
    pub(crate) fn gateway_started(&mut self, gateway: Arc<GatewayProcess>) {
        self.gateway = Some(gateway);
    }

    /// The first of its users on the host, if it has its own.
    pub(crate) fn user(&self) -> Option<u32> {
        self.processes.as_ref().and_then(|processes| processes.user)
    }
}

/// What a look has found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) exceeded: Option<SandboxLimit>,
    /// Whether it is to be ended for that now.
    pub(crate) is_due: bool,
    /// How long the next look may wait.
    pub(crate) pause: Duration,
}

impl Processes {
    pub(crate) fn new(pid: Pid, runsc: OwnedFd, user: Option<u32>) -> Self {
        Self { pid, runsc, user, exit: Mutex::default(), children: Mutex::default() }
    }

    /// The descriptor of `runsc run`, whose end is the sandbox's end.
    pub(crate) fn runsc(&self) -> &OwnedFd {
        &self.runsc
    }

    /// Takes hold of runsc's children.
    pub(crate) fn muster(&self, group: &Group) {
        let us = rustix::process::getpid();
        let mut children = lock(&self.children);
        for pid in group.pids() {
            if pid == self.pid || children.iter().any(|(known, _)| *known == pid) {
                continue;
            }
            let Ok(child) = process::open(pid) else { continue };
            // Looked at after taking hold: if the number was reused in between, what we hold is dead and not ours.
            if process::parent(pid).is_some_and(|parent| parent == self.pid || parent == us) {
                children.push((pid, child));
            }
        }
    }

    /// Lets go of those that have ended and are ours. A sandbox's processes only: see [`process`].
    fn reap(&self, group: &Group) {
        if let Some(exit) = process::bury(&self.runsc) {
            lock(&self.exit).get_or_insert(exit);
        }
        // Its children are ours now, if it has not waited for them itself.
        for (_, child) in lock(&self.children).drain(..) {
            process::bury(&child);
        }
        // Whoever ended before it was taken hold of.
        bury_dead(group, self.user);
    }
}

/// Lets go of children of this process that were of a sandbox, known by its group or by its users, and of gateways, of
/// whatever sandbox: how one ended nobody needs to know.
pub(crate) fn bury_dead(group: &Group, user: Option<u32>) {
    for dead in process::dead_children() {
        let own = user.is_some_and(|first| identity::is_of(first, dead.user));
        if own || identity::is_gateway(dead.user) || group.is_unified_path_of(&dead.cgroups) {
            dead.bury();
        }
    }
}

/// Bytes that the files in a directory take on the disk.
fn disk_usage(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().take(COUNTED_FILES);
    // Of the entry itself: nothing is followed.
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> (tempfile::TempDir, Live) {
        let root = tempfile::tempdir().unwrap();
        let id = SandboxId::from_bits(3);
        let cgroups = crate::cgroup::tests::fake(root.path(), &id);
        let live = Live::new(id.clone(), root.path().join("sandbox"), cgroups.group(&id));
        (root, live)
    }

    #[test]
    fn nothing_is_made_of_what_is_to_be_removed() {
        let (_root, live) = live();
        drop(live.making().unwrap());
        live.doom();
        assert!(live.making().is_err());
        assert_eq!(live.termination(), Some(Termination::Killed));
    }

    #[test]
    fn the_first_limit_stays_and_the_first_cause_stays() {
        let (root, live) = live();
        live.mark_killed();
        crate::cgroup::tests::run_out_of_memory(root.path(), &live.id);
        assert_eq!(live.look().exceeded, Some(SandboxLimit::Memory));
        assert_eq!(lock(&live.fate).cause, Some(Cause::Killed));
        assert_eq!(live.observation().exceeded, Some(SandboxLimit::Memory));
    }

    #[test]
    fn an_overrun_that_nobody_has_seen_yet_goes_before_the_kill() {
        let (root, live) = live();
        crate::cgroup::tests::run_out_of_memory(root.path(), &live.id);
        live.mark_killed();
        assert_eq!(lock(&live.fate).cause, Some(Cause::Exceeded(SandboxLimit::Memory)));
    }

    #[test]
    fn accounting_outlives_the_group() {
        let (root, live) = live();
        let before = live.observation();
        assert!(before.usage.memory_peak_bytes > 0);
        fs::remove_dir_all(root.path().join(live.id.as_str())).unwrap();
        assert_eq!(live.observation(), before);
    }

    #[test]
    fn the_disk_is_counted_in_blocks_and_without_following_links() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), vec![1; 100_000]).unwrap();
        let plain = disk_usage(root.path());
        assert!(plain >= 100_000);
        std::os::unix::fs::symlink("/usr", root.path().join("b")).unwrap();
        fs::File::create(root.path().join("sparse")).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(disk_usage(root.path()), plain);
    }
}
