# Clones one repository at one ref, in a sandbox of its own, and writes the files of its tree to stdout. The engine runs
# it (driver/clone.rs) and reads what it writes as hostile bytes (driver/clone/tree.rs).
#
# Nothing is checked out: blobs are copied as they are, so that no attribute, filter, hook or submodule of the repository
# means anything. Git is told nothing but a URL, a ref and ids; it reads no configuration but what stands here.
#
# One record for each file: kind (b"f" file, b"x" executable, b"l" link, b"e" end), length of the path in 4 bytes, length
# of the content in 8, both big-endian, then the path and the content. The end has the number of records as its length.

import os
import struct
import subprocess
import sys

url, shown, ref, subpath, most_bytes, most_files = sys.argv[1:]
most_bytes, most_files = int(most_bytes), int(most_files)

FOLDER = "/tmp/clone"
STDERR = "/tmp/clone.stderr"
FETCHED = "refs/enclave/fetched"
# What git says last is why it failed.
LAST_WORDS = 2048
CHUNK = 1 << 20

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
ENV = {name: os.environ[name] for name in ("PATH", *PROXIES) if name in os.environ}
ENV |= {
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "GIT_ALLOW_PROTOCOL": "http:https",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
}
CONFIG = {
    "protocol.allow": "never",
    "protocol.http.allow": "always",
    "protocol.https.allow": "always",
    # A redirect that names another host gets no further than the gateway.
    "http.followRedirects": "initial" if url == shown else "false",
    "credential.helper": "",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.askPass": "/bin/false",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    # One pack, whatever its size: fewer files, and no second copy.
    "fetch.unpackLimit": "1",
    "transfer.bundleURI": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "core.deltaBaseCacheLimit": "32m",
}
GIT = ["git", *(word for item in CONFIG.items() for word in ("-c", "=".join(item)))]


def fail(text):
    enclave.result({"error": text})
    sys.exit(1)


def start(*words, **more):
    try:
        with open(STDERR, "wb") as stderr:
            return subprocess.Popen([*GIT, "--git-dir", FOLDER, *words], env=ENV, stderr=stderr, **more)
    except FileNotFoundError:
        fail("the image has no git")


def last_words():
    with open(STDERR, "rb") as stderr:
        stderr.seek(max(0, os.fstat(stderr.fileno()).st_size - LAST_WORDS))
        return stderr.read().decode(errors="replace").replace(url, shown).strip()


def git(*words):
    process = start(*words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    out = process.stdout.read(CHUNK).decode(errors="replace").strip()
    process.stdout.close()
    return process.wait(), out


def entries(tree):
    """What the tree has, one at a time: a small repository can name more files than there are atoms."""
    process = start("ls-tree", "-r", "-z", "-l", tree, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    rest = b""
    while part := process.stdout.read1(CHUNK):
        *whole, rest = (rest + part).split(b"\0")
        for entry in whole:
            about, _, path = entry.partition(b"\t")
            mode, kind, name, size = about.split()
            yield mode, kind, name.decode(), 0 if size == b"-" else int(size), path
    if process.wait() != 0:
        fail(f"the tree cannot be read: {last_words()}")


def is_text(name):
    try:
        return not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name.decode())
    except UnicodeDecodeError:
        return False


def is_plain(path):
    parts = path.split(b"/")
    fits = len(path) <= 1024 and len(parts) <= 32 and all(0 < len(part) <= 255 for part in parts)
    return fits and is_text(path) and not {b".", b".."} & set(parts)


def is_git(path):
    return any(part.rstrip(b". ").lower() == b".git" for part in path.split(b"/"))


def stays_inside(path, target):
    depth = path.count(b"/")
    for part in target.split(b"/"):
        depth += {b"": 0, b".": 0, b"..": -1}.get(part, 1)
        if depth < 0:
            return False
    return 0 < len(target) <= 1024 and not target.startswith(b"/") and is_text(target)


def write(data):
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def choose(tree):
    skipped = {"links": 0, "submodules": 0, "names": 0}
    chosen, total = [], 0
    for mode, kind, name, size, path in entries(tree):
        if kind != b"blob":
            skipped["submodules"] += 1
        elif is_git(path) or not is_plain(path):
            skipped["names"] += 1
        elif mode == b"120000" and size > 1024:
            skipped["links"] += 1
        else:
            chosen.append((mode, name, size, path))
            total += size
        if total > most_bytes:
            fail(f"the files have more than {most_bytes} bytes together")
        if len(chosen) > most_files or sum(skipped.values()) > most_files:
            fail(f"there are more than {most_files} files")
    return chosen, skipped


def copy(chosen, skipped):
    blobs = start("cat-file", "--batch", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    count = 0
    for mode, name, size, path in chosen:
        blobs.stdin.write(f"{name}\n".encode())
        blobs.stdin.flush()
        if blobs.stdout.readline().split() != [name.encode(), b"blob", str(size).encode()]:
            fail(f"an object cannot be read: {last_words()}")
        link = mode == b"120000"
        kind = b"l" if link else b"x" if mode == b"100755" else b"f"
        header = struct.pack(">cIQ", kind, len(path), size) + path
        if link:
            target = blobs.stdout.read(size)
            if stays_inside(path, target):
                write(header + target)
                count += 1
            else:
                skipped["links"] += 1
        else:
            write(header)
            while size:
                data = blobs.stdout.read(min(size, CHUNK))
                if not data:
                    fail("an object is cut short")
                write(data)
                size -= len(data)
            count += 1
        blobs.stdout.read(1)
    write(struct.pack(">cIQ", b"e", 0, count))


def main():
    if git("init", "--quiet", "--bare", "--template=", FOLDER)[0] != 0:
        fail(f"git cannot be used: {last_words()}")
    options = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance", "--no-write-fetch-head")
    if git("fetch", *options, "--", url, f"{ref}:{FETCHED}")[0] != 0:
        fail(last_words() or "git fetch failed and does not say why")
    code, commit = git("rev-parse", "--verify", "--quiet", f"{FETCHED}^{{commit}}")
    if code != 0:
        fail("the ref names no commit")
    # A path comes behind the colon, whatever is in it.
    code, tree = git("rev-parse", "--verify", "--quiet", f"{commit}:{subpath}")
    if code != 0 or git("cat-file", "-t", tree) != (0, "tree"):
        fail(f"there is no directory {subpath} at commit {commit}")
    chosen, skipped = choose(tree)
    copy(chosen, skipped)
    enclave.result({"commit": commit, "skipped": skipped})


main()
