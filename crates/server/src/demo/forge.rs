//! A git server on this host: `git http-backend` behind a small HTTP/1.1 server on loopback. Below `/private` it wants a
//! token. For the demo, and for the tests of git sources.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

pub(crate) struct Forge {
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    /// The `Authorization` of each request to `/private`.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Forge {
    /// Starts it; fails where git has no http-backend.
    pub(crate) fn start(token: &str) -> io::Result<Self> {
        let git = Command::new("git").arg("http-backend").stdin(Stdio::null()).stderr(Stdio::null()).output()?;
        if !String::from_utf8_lossy(&git.stdout).contains("Status:") {
            return Err(io::Error::new(io::ErrorKind::NotFound, "git has no http-backend here"));
        }
        let folder = tempfile::tempdir()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (root, token, kept) = (folder.path().to_owned(), token.to_owned(), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, token, seen) = (root.clone(), token.clone(), Arc::clone(&kept));
                // A client that breaks off is its own matter.
                std::thread::spawn(move || drop(serve(stream, &root, &token, &seen)));
            }
        });
        Ok(Self { port, folder, seen })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Where a published repository is.
    pub(crate) fn served(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    /// The `Authorization` of each request to `/private` so far.
    pub(crate) fn presented(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a repository with a script that runs in its work tree, and publishes it. Gives its commit.
    pub(crate) fn publish(&self, path: &str, script: &str) -> io::Result<String> {
        let work = self.folder.path().join(format!("work{}", path.replace('/', "-")));
        std::fs::create_dir_all(&work)?;
        let whole = format!("set -e\ngit init -q -b main .\n{script}\ngit add -A\ngit commit -q --allow-empty -m one");
        run(&work, "sh", &["-c", &whole])?;
        let served = self.served(path);
        std::fs::create_dir_all(served.parent().unwrap_or(&served))?;
        run(&work, "git", &["clone", "-q", "--bare", ".", &served.to_string_lossy()])?;
        run(&work, "git", &["rev-parse", "HEAD"])
    }
}

/// Runs a program in a directory of the server's, and gives what it printed.
pub(crate) fn run(dir: &Path, program: &str, args: &[&str]) -> io::Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@example.org")])
        .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@example.org")])
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(io::Error::other(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// One request on one connection.
fn serve(stream: TcpStream, root: &Path, token: &str, seen: &Mutex<Vec<String>>) -> io::Result<()> {
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
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(given);
        if !decoded.is_some_and(|decoded| String::from_utf8_lossy(&decoded).ends_with(&format!(":{token}"))) {
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
    let mut stdin = child.stdin.take().expect("piped");
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

fn body(reader: &mut BufReader<TcpStream>, length: Option<&str>, encoding: Option<&str>) -> io::Result<Vec<u8>> {
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
