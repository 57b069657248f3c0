//! The clone step's program, with the git and the Python of the image, against a git server inside the same sandbox.

use crate::support::{host, python};

const PROGRAM: &str = include_str!("../../../engine/src/driver/clone/clone.py");

/// Serves `/tmp/repos` and makes a repository there, as hostile as git lets one.
const FORGE: &str = r#"
import os, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
os.environ.update(GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@b", HOME="/tmp")
subprocess.run(["sh", "-ec", """
mkdir /tmp/repos /tmp/work; cd /tmp/work; git init -q -b main .
mkdir app; echo 'import helper' > app/main.py; echo > app/helper.py; printf '#!/bin/sh' > tool; chmod +x tool
ln -s /etc/shadow shadow; ln -s app/main.py inside; printf x > "$(printf 'new\\nline')"
git add -A; git commit -q -m one; git clone -q --bare . /tmp/repos/r.git
"""], check=True)
class Handler(BaseHTTPRequestHandler):
    def do(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        env = dict(os.environ, GIT_PROJECT_ROOT="/tmp/repos", GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query,
            REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("content-type", ""), CONTENT_LENGTH=str(len(body)),
            GIT_PROTOCOL=self.headers.get("git-protocol", ""), HTTP_CONTENT_ENCODING=self.headers.get("content-encoding", ""))
        out = subprocess.run(["git", "http-backend"], env=env, input=body, stdout=subprocess.PIPE).stdout
        head, _, rest = out.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for item in headers.items(): self.send_header(*item)
        self.end_headers()
        self.wfile.write(rest)
    def log_message(self, *_): pass
    do_GET = do_POST = do
server = ThreadingHTTPServer(("127.0.0.1", 8077), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = "http://127.0.0.1:8077/r.git"
sys.argv[1:] = [url, url, "main", "", "1000000", "100"]
"#;

#[tokio::test]
async fn the_clone_program_works_with_what_the_image_has() {
    let Some(host) = host("the_clone_program_works_with_what_the_image_has").await else { return };
    let ended = host.run(&python(&format!("{FORGE}\n{PROGRAM}"))).await;
    let results = &ended.seen.results;
    assert_eq!(ended.seen.exit, Some(0), "{:?}", ended.seen);
    assert!(results[0].contains(r#""skipped":{"links":1,"submodules":0,"names":1}"#), "{results:?}");
    for name in ["app/helper.py", "app/main.py", "inside", "tool"] {
        assert!(ended.seen.stdout.contains(name), "{name}: {:?}", ended.seen.stdout);
    }
    assert!(!ended.seen.stdout.contains("shadow"));
}
