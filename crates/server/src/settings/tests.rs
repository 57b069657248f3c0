use std::collections::BTreeMap;

use super::*;

fn read(flags: &[(&'static str, &str)]) -> Result<Settings, Vec<String>> {
    let flags: BTreeMap<_, _> = flags.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    let layers = Layers::of_flags(flags);
    Settings::read(&layers).map_err(|ConfigError(faults)| faults)
}

#[test]
fn nothing_said_gives_the_defaults_and_every_key_of_the_table_is_read() {
    let layers = Layers::default();
    let mut reader = Reader { layers: &layers, faults: Vec::new(), read: Vec::new() };
    let settings = reader.all();
    assert_eq!(reader.faults, Vec::<String>::new());
    let mut names: Vec<_> = keys::KEYS.iter().map(|key| key.name).collect();
    let mut read = reader.read;
    names.sort_unstable();
    read.sort_unstable();
    assert_eq!(read, names);
    assert_eq!(settings.listening.listen, "127.0.0.1:8088");
    assert_eq!(settings.sessions.profile, Profile::SelfHost);
    assert_eq!(settings.sessions.maxima, CEILING);
    assert!(settings.sessions.max_concurrency >= 1);
    assert_eq!(settings.listening.metrics_listen, None);
}

#[test]
fn every_fault_is_told_with_where_it_was_said() {
    let faults = read(&[
        ("listen", "8088"),
        ("profile", "open"),
        ("backend", "firecracker"),
        ("max_concurrency", "0"),
        ("max_memory", "1MB"),
        ("max_cpu", "1000"),
        ("max_wall_clock", "1s1"),
        ("max_pids", "99999"),
        ("database_url", "postgres://user:canary@host/db"),
        ("cgroup_parent", "/a/../../b"),
        ("log_level", "info,=,"),
        ("metrics_listen", "on"),
    ])
    .unwrap_err();
    let all = faults.join("\n");
    for flag in [
        "--listen",
        "--profile",
        "--backend",
        "--max-concurrency",
        "--max-memory",
        "--max-cpu",
        "--max-wall-clock",
        "--max-pids",
        "--database-url",
        "--cgroup-parent",
        "--log-level",
        "--metrics-listen",
    ] {
        assert_eq!(faults.iter().filter(|fault| fault.starts_with(&format!("{flag}: "))).count(), 1, "{flag} in {all}");
    }
    assert!(all.contains("does not have the backend firecracker yet"), "{all}");
    assert!(!all.contains("canary"), "{all}");
}

#[test]
fn what_is_said_is_what_is_meant() {
    let settings = read(&[
        ("metrics_listen", "127.0.0.1:9464"),
        ("profile", "hosted"),
        ("max_memory", "1GiB"),
        ("max_cpu", "0.5"),
        ("max_cpu_time", "90s"),
        ("drain_seconds", "5"),
        ("database_url", "sqlite:/x/y.db"),
        ("data_dir", "/x"),
        ("runsc_platform", "ptrace"),
        ("cgroup_parent", "/system.slice/enclave.service"),
    ])
    .unwrap();
    assert_eq!(settings.listening.metrics_listen.as_deref(), Some("127.0.0.1:9464"));
    assert_eq!(settings.sessions.profile, Profile::Hosted);
    let maxima = settings.sessions.maxima;
    assert_eq!((maxima.memory_bytes, maxima.cpu_millis, maxima.cpu_time_ms), (1 << 30, 500, Some(90_000)));
    assert_eq!(settings.sessions.drain, Duration::from_secs(5));
    assert_eq!(settings.state.database, Some("/x/y.db".into()));
    assert!(!settings.state.is_default);
    assert_eq!(settings.gvisor.platform, Platform::Ptrace);
    assert_eq!(settings.gvisor.cgroup_parent, Some("system.slice/enclave.service".into()));
}

#[test]
fn later_layers_win() {
    let mut layers = Layers::of_file("max_queue = 1\nmax_pids = 100\nmax_connections = 7\n");
    layers.say_in_environment(&[("ENCLAVE_MAX_QUEUE", "2"), ("ENCLAVE_MAX_PIDS", "200")]);
    layers.say_by_flags(BTreeMap::from([("max_queue", "3".to_owned())]));
    let settings = Settings::read(&layers).unwrap();
    assert_eq!(settings.sessions.max_queue, 3);
    assert_eq!(settings.sessions.maxima.pids, 200);
    assert_eq!(settings.listening.max_connections, 7);
}
