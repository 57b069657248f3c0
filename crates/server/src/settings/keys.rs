//! Every key of the configuration: name, default, meaning. Help, environment names, and docs/configuration.md come from
//! this table and from nowhere else.

/// A key. In the file it is `name`, in the environment `ENCLAVE_<NAME>`, on the command line `--name` with dashes.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) section: &'static str,
    /// What stands for the value in help.
    pub(crate) value: &'static str,
    pub(crate) default: Fallback,
    /// One sentence, then details.
    pub(crate) help: &'static str,
}

/// What a key is when nobody says anything.
#[derive(Debug)]
pub(crate) enum Fallback {
    /// This text, read like any other.
    Text(&'static str),
    /// Worked out where it is read; this says how.
    Described(&'static str),
}

impl Key {
    pub(crate) fn env(&self) -> String {
        format!("ENCLAVE_{}", self.name.to_ascii_uppercase())
    }

    /// Whether the value itself is a secret: taken from the environment alone. Other users of the machine see the command
    /// line, and may read the file.
    pub(crate) fn is_secret(&self) -> bool {
        self.name == "secrets_key"
    }

    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The default in words.
    pub(crate) fn shown_default(&self) -> &'static str {
        match self.default {
            Fallback::Text(text) | Fallback::Described(text) => text,
        }
    }
}

/// The key of that name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const LISTENING: &str = "Listening";
const STATE: &str = "State";
const SESSIONS: &str = "Sessions";
const MAXIMA: &str = "Maxima: the most that a session may ask for";
const EGRESS: &str = "Egress: what the deployment says for all sessions";
const WEBHOOKS: &str = "Webhooks";
const GVISOR: &str = "gVisor";
const PROCESS: &str = "Process";

use Fallback::{Described, Text};

/// All of them, in the order of the reference.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "listen",
        section: LISTENING,
        value: "HOST:PORT",
        default: Text("127.0.0.1:8088"),
        help: "Address of the API. Plain HTTP: put a proxy that speaks TLS in front of it before it leaves the machine. \
               The dev profile takes loopback addresses only.",
    },
    Key {
        name: "metrics_listen",
        section: LISTENING,
        value: "HOST:PORT|off",
        default: Text("off"),
        help: "Address of the Prometheus listener, which answers `GET /metrics` and nothing else, to anybody: keep it \
               where only your monitoring can reach it, 127.0.0.1:9464 for example. The dev profile takes loopback \
               addresses only.",
    },
    Key {
        name: "max_connections",
        section: LISTENING,
        value: "N",
        default: Text("1024"),
        help: "Connections to the API at the same time. More wait in the kernel's queue.",
    },
    Key {
        name: "body_limit",
        section: LISTENING,
        value: "SIZE",
        default: Text("2MiB"),
        help: "The largest request body. Larger ones are refused with 413 before they are read.",
    },
    Key {
        name: "data_dir",
        section: STATE,
        value: "DIR",
        default: Described("/var/lib/enclave for root, else $XDG_DATA_HOME/enclave (~/.local/share/enclave)"),
        help: "Directory of everything that outlives the process: database, sandboxes' files, secrets.key, and \
               enclave.pepper, the key under which API keys are hashed. Made with mode 0700; one server at a time.",
    },
    Key {
        name: "database_url",
        section: STATE,
        value: "URL",
        default: Described("sqlite: enclave.db in data_dir"),
        help: "The database: sqlite:PATH. This version has no other store.",
    },
    Key {
        name: "secrets_key_file",
        section: STATE,
        value: "FILE",
        default: Described("secrets.key in data_dir, made at the first start"),
        help: "File of the key under which the secrets of bindings are sealed: 32 bytes, as hex or base64. At most one of \
               the three secrets_key settings may be given. Keep it apart from the database: together they are the \
               secrets. Without it they cannot be opened, and have to be set again.",
    },
    Key {
        name: "secrets_key",
        section: STATE,
        value: "KEY",
        default: Described("none"),
        help: "The same key itself. Taken from the environment alone: the command line can be seen by other users.",
    },
    Key {
        name: "secrets_key_command",
        section: STATE,
        value: "COMMAND",
        default: Described("none"),
        help: "Command for sh that prints the same key, from a key store for example. It is run once, at the start, and \
               has 30 seconds.",
    },
    Key {
        name: "profile",
        section: SESSIONS,
        value: "dev|selfhost|hosted",
        default: Text("selfhost"),
        help: "Who may call. selfhost and hosted authenticate every call. hosted also refuses to start with the \
               simulator or with a backend that shares the host's kernel. dev lets calls without a key act as the owner \
               of org dev, and listens on loopback only.",
    },
    Key {
        name: "backend",
        section: SESSIONS,
        value: "auto|gvisor|simulator",
        default: Text("auto"),
        help: "What runs sessions. auto takes the strongest that works on this host, never the simulator, and says \
               which and why. The simulator executes nothing: it models what can be observed.",
    },
    Key {
        name: "max_concurrency",
        section: SESSIONS,
        value: "N",
        default: Described("4 for each core, within three quarters of memory at 512 MiB each"),
        help: "Sessions that hold a sandbox at the same time. More wait in the queue.",
    },
    Key {
        name: "max_queue",
        section: SESSIONS,
        value: "N",
        default: Text("1000"),
        help: "Sessions that may wait for a place. More are refused with 429 and Retry-After.",
    },
    Key {
        name: "warm",
        section: SESSIONS,
        value: "N",
        default: Text("1"),
        help: "Sandboxes kept booted ahead: as many of the kinds (language, image, diskBytes, way out) that were asked for \
               last. A session that finds one starts in milliseconds; nothing of any session is in it before. Each takes \
               some 50 MiB of memory, and no CPU: it is stopped while it waits, where there is a cgroup tree of version 2. \
               0 boots every sandbox when it is needed; the simulator always does.",
    },
    Key {
        name: "replay_buffer",
        section: SESSIONS,
        value: "SIZE",
        default: Text("64MiB"),
        help: "Output kept in memory for late and returning readers of streams, over all sessions; a running session \
               keeps 256 KiB whatever the others hold. What has to be dropped is said in a gap frame.",
    },
    Key {
        name: "artifact_store",
        section: SESSIONS,
        value: "DIR|s3://BUCKET[/PREFIX]",
        default: Described("artifacts in data_dir"),
        help: "Where the files are kept that sessions ask to be collected (`artifacts`): a directory, or a bucket of a store \
               that speaks S3. How that is reached and with which key comes from the usual variables: AWS_REGION, \
               AWS_ENDPOINT_URL (other stores than Amazon's), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, \
               AWS_ALLOW_HTTP (true, for an endpoint without TLS); without a key, from the machine's own identity.",
    },
    Key {
        name: "artifact_retention",
        section: SESSIONS,
        value: "TIME",
        default: Text("7d"),
        help: "How long artifacts are kept.",
    },
    Key {
        name: "artifact_quota",
        section: SESSIONS,
        value: "SIZE",
        default: Text("10GiB"),
        help: "Bytes of artifacts that are kept of one org. The oldest sessions' make room.",
    },
    Key {
        name: "drain_seconds",
        section: SESSIONS,
        value: "SECONDS",
        default: Text("30"),
        help: "On SIGTERM or SIGINT: how long running sessions may still take before they are ended. A second signal \
               ends them at once.",
    },
    Key { name: "max_cpu", section: MAXIMA, value: "CORES", default: Text("16"), help: "Highest limits.cpu." },
    Key {
        name: "max_cpu_time",
        section: MAXIMA,
        value: "DURATION",
        default: Text("24h"),
        help: "Highest limits.cpuTimeMs. A session that asks for nothing is unbounded; if this is less than 24h, it gets \
               this.",
    },
    Key {
        name: "max_memory",
        section: MAXIMA,
        value: "SIZE",
        default: Text("16GiB"),
        help: "Highest limits.memoryBytes. A session that asks for nothing gets 512 MiB or this, whichever is less; the \
               other maxima lower their defaults in the same way.",
    },
    Key {
        name: "max_wall_clock",
        section: MAXIMA,
        value: "DURATION",
        default: Text("24h"),
        help: "Highest limits.wallClockMs.",
    },
    Key {
        name: "max_lifetime",
        section: MAXIMA,
        value: "DURATION",
        default: Described("the value of max_wall_clock"),
        help: "Highest interactive.maxLifetimeMs, and so the longest life of an interactive session. No idle TTL, turn \
               timeout or turn budget is longer.",
    },
    Key {
        name: "max_idle_ttl",
        section: MAXIMA,
        value: "DURATION",
        default: Described("the value of max_lifetime"),
        help: "Highest interactive.idleTtlMs: how long an interactive session may hold a sandbox without a turn.",
    },
    Key { name: "max_pids", section: MAXIMA, value: "N", default: Text("4096"), help: "Highest limits.pids." },
    Key { name: "max_disk", section: MAXIMA, value: "SIZE", default: Text("64GiB"), help: "Highest limits.diskBytes." },
    Key {
        name: "max_output",
        section: MAXIMA,
        value: "SIZE",
        default: Text("1GiB"),
        help: "Highest limits.outputBytes.",
    },
    Key {
        name: "egress_permit",
        section: EGRESS,
        value: "CIDR[:PORT],…|none",
        default: Text("none"),
        help: "Addresses that a session's allowlist may name although no session may reach them otherwise: loopback, \
               link-local, the host's own. 127.0.0.1/32:8443 permits one port, fd00::/8 all of them. A binding may lead \
               to them too. It allows nothing by itself.",
    },
    Key {
        name: "egress_resolver",
        section: EGRESS,
        value: "IP:PORT",
        default: Described("the resolvers of the host, in /etc/resolv.conf"),
        help: "The DNS server that gateways ask, and the server for its webhooks.",
    },
    Key {
        name: "egress_bytes",
        section: EGRESS,
        value: "SIZE",
        default: Text("64GiB"),
        help: "Bytes that one session may move through its gateway, both ways together.",
    },
    Key {
        name: "webhook_permit",
        section: WEBHOOKS,
        value: "CIDR[:PORT],…|none",
        default: Text("none"),
        help: "Addresses that webhooks may be sent to although they are private, loopback, link-local or the host's own: \
               10.1.0.0/16, or 127.0.0.1/32:9000 for one port. Public addresses need no entry.",
    },
    Key {
        name: "image_dir",
        section: GVISOR,
        value: "DIR",
        default: Described("/var/lib/enclave/images for root, else $XDG_DATA_HOME/enclave/images"),
        help: "Where `enclave image build` puts images, and where the server takes them from. The image named default is \
               the one that sessions get when they name none.",
    },
    Key {
        name: "runsc",
        section: GVISOR,
        value: "PATH",
        default: Described("the first runsc in PATH"),
        help: "The gVisor binary.",
    },
    Key {
        name: "runsc_platform",
        section: GVISOR,
        value: "systrap|ptrace|kvm",
        default: Text("systrap"),
        help: "How gVisor intercepts system calls. kvm needs a /dev/kvm of real hardware.",
    },
    Key {
        name: "cgroup_parent",
        section: GVISOR,
        value: "PATH",
        default: Described("the root of each hierarchy"),
        help: "Cgroup below which the sandboxes' cgroups are made, relative to the root of each hierarchy: for a server \
               that was delegated only a subtree.",
    },
    Key {
        name: "worker_threads",
        section: PROCESS,
        value: "N",
        default: Described("one for each core, at most 8"),
        help: "Threads that serve requests and drive sessions.",
    },
    Key {
        name: "log_format",
        section: PROCESS,
        value: "auto|human|json",
        default: Text("auto"),
        help: "Form of the log on stderr. auto is human on a terminal and json otherwise.",
    },
    Key {
        name: "log_level",
        section: PROCESS,
        value: "FILTER",
        default: Text("info"),
        help: "What is logged: error, warn, info, debug, trace, or a filter such as info,engine=debug.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_plain() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(key.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", key.name);
            assert!(KEYS[at + 1..].iter().all(|other| other.name != key.name), "{} is there twice", key.name);
            assert!(key.help.ends_with('.'), "{}", key.name);
        }
    }

    #[test]
    fn keys_of_a_section_stand_together() {
        let mut seen: Vec<&str> = Vec::new();
        for key in KEYS {
            if seen.last() != Some(&key.section) {
                assert!(!seen.contains(&key.section), "{} is split", key.section);
                seen.push(key.section);
            }
        }
    }
}
