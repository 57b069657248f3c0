//! A git server for tests: `git http-backend` behind a small HTTP/1.1 server on loopback. Below `/private` it wants a
//! token.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// What `/private` wants as the password.
pub(crate) const TOKEN: &str = "canary-token-of-the-forge";

pub(crate) struct Forge {
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    /// The `Authorization` of each request to `/private`.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl Forge {
    /// Starts it, or prints why the test is skipped.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let git = Command::new("git").arg("http-backend").stdin(Stdio::null()).stderr(Stdio::null()).output();
        if !git.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("Status:")) {
            println!("SKIP {test}: git with its http-backend");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, root) = (listener.local_addr().unwrap().port(), folder.path().to_owned());
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, seen) = (root.clone(), Arc::clone(&kept));
                // A client that breaks off is its own matter.
                std::thread::spawn(move || drop(serve(stream, &root, &seen)));
            }
        });
        Some(Self { port, folder, seen })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Makes a repository with a script that runs in its work tree, and publishes it. Gives its commit.
    pub(crate) fn publish(&self, path: &str, script: &str) -> String {
        let work = self.folder.path().join(format!("work{}", path.replace('/', "-")));
        std::fs::create_dir_all(&work).unwrap();
        let whole = format!("set -e\ngit init -q -b main .\n{script}\ngit add -A\ngit commit -q --allow-empty -m one");
        run(&work, "sh", &["-c", &whole]);
        let served = self.folder.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(served.parent().unwrap()).unwrap();
        run(&work, "git", &["clone", "-q", "--bare", ".", served.to_str().unwrap()]);
        run(&work, "git", &["rev-parse", "HEAD"])
    }

    /// Changes a published repository with a script that runs in it.
    pub(crate) fn change(&self, path: &str, script: &str) -> String {
        run(&self.folder.path().join(path.trim_start_matches('/')), "sh", &["-ec", script])
    }
}

fn run(dir: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@example.org")])
        .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@example.org")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// One request on one connection.
fn serve(stream: TcpStream, root: &Path, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let body = body(&mut reader, header("content-length"), header("transfer-encoding"))?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut stream = stream;
    if path.starts_with("/private/") {
        let given = header("authorization").unwrap_or_default().to_owned();
        let decoded = given.strip_prefix("Basic ").and_then(|given| BASE64_STANDARD.decode(given).ok());
        seen.lock().unwrap().push(given);
        if !decoded.is_some_and(|decoded| String::from_utf8_lossy(&decoded).ends_with(&format!(":{TOKEN}"))) {
            let refused = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"forge\"\r\n";
            return stream.write_all(format!("{refused}content-length: 0\r\nconnection: close\r\n\r\n").as_bytes());
        }
    }
    let mut backend = Command::new("git");
    backend.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    backend.env("GIT_CONFIG_GLOBAL", "/dev/null").env("REMOTE_ADDR", "127.0.0.1").env("REQUEST_METHOD", method);
    backend.env("PATH_INFO", path).env("QUERY_STRING", query).env("CONTENT_LENGTH", body.len().to_string());
    // Otherwise git refuses repositories of another user than the one who runs the tests.
    backend.envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")]);
    for (name, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("git-protocol", "GIT_PROTOCOL"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
    ] {
        if let Some(value) = header(name) {
            backend.env(variable, value);
        }
    }
    let mut child = backend.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&body)));
    let output = child.wait_with_output()?.stdout;
    let _ = writer.join();
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.len());
    let (head, content) = (String::from_utf8_lossy(&output[..end]), output.get(end + 4..).unwrap_or_default());
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let rest: String =
        head.lines().filter(|line| !line.starts_with("Status: ")).map(|line| format!("{line}\r\n")).collect();
    let length = content.len();
    let answer = format!("HTTP/1.1 {status}\r\n{rest}content-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes())?;
    stream.write_all(content)
}

fn body(reader: &mut BufReader<TcpStream>, length: Option<&str>, encoding: Option<&str>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if encoding == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    body.resize(length.and_then(|length| length.parse().ok()).unwrap_or(0), 0);
    reader.read_exact(&mut body)?;
    Ok(body)
}

/// Where repositories of a real server are, for looks at what must not be there.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}
