use std::{
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
};

use protocol::files::{FILE_CHUNK_BYTES, MAX_FILE_HANDLES, Name};

use rustix::fs::Mode;

use super::*;

/// A directory, and what serves it. Its disk is everybody's, so that only its own files count.
fn desk(disk_bytes: u64) -> (tempfile::TempDir, Handles) {
    let dir = tempfile::tempdir().expect("creates");
    let handles = Handles::new(Place::open(dir.path()).expect("opens"), disk_bytes, false);
    (dir, handles)
}

fn upload(handles: &mut Handles, path: &str, parts: &[&[u8]]) -> Outcome {
    serve(handles, FileOp::Create { handle: 7, path: path.into(), mode: 0o640, size: None })?;
    for part in parts {
        serve(handles, FileOp::Write { handle: 7, data: part.to_vec() })?;
    }
    serve(handles, FileOp::Commit { handle: 7 })
}

fn download(handles: &mut Handles, path: &str) -> Result<Vec<u8>, WhyNot> {
    let opened = serve(handles, FileOp::Open { handle: 8, path: path.into() }).map_err(|refusal| refusal.why)?;
    let FileDone::Opened(facts) = opened else { panic!("{opened:?}") };
    let read = serve(handles, FileOp::Read { handle: 8, offset: 0, bytes: 1 << 20 });
    serve(handles, FileOp::Close { handle: 8 }).expect("closes");
    let Ok(FileDone::Read(data)) = read else { panic!("{read:?}") };
    assert_eq!(facts.size, data.len() as u64);
    Ok(data)
}

fn why(outcome: Outcome) -> WhyNot {
    outcome.expect_err("refused").why
}

/// Everything that is in a directory.
fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("lists") {
        let entry = entry.expect("lists");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().expect("looks").is_dir() {
            found.extend(tree(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        }
        found.push(name);
    }
    found.sort();
    found
}

fn listed(handles: &Handles, path: Option<&str>, recursive: bool, limit: u32) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let wanted = list::Wanted { path, recursive, after: after.as_ref(), limit };
        let Ok(FileDone::Listed { entries, more }) = list::list(handles, &wanted) else { panic!("not listed") };
        assert!(entries.len() <= limit as usize && (!more || !entries.is_empty()));
        all.extend(entries.iter().map(|entry| String::from_utf8_lossy(&entry.path.0).into_owned()));
        after = entries.last().map(|entry| entry.path.clone());
        if !more {
            return all;
        }
    }
}

#[test]
fn a_file_comes_whole_with_its_mode_and_directories_and_is_read_again() {
    let (dir, mut handles) = desk(1 << 20);
    upload(&mut handles, "a/b/c", &[b"one ", b"", b"two"]).expect("uploads");
    assert_eq!(download(&mut handles, "a/b/c"), Ok(b"one two".to_vec()));
    let mode = std::fs::metadata(dir.path().join("a/b/c")).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert_eq!(tree(dir.path()), ["a", "a/b", "a/b/c"]);
}

#[test]
fn until_it_is_whole_nothing_has_its_name_and_given_up_nothing_is_left() {
    let (dir, mut handles) = desk(1 << 20);
    upload(&mut handles, "kept", &[b"old"]).expect("uploads");
    for path in ["kept", "new/deep"] {
        serve(&mut handles, FileOp::Create { handle: 1, path: path.into(), mode: 0o600, size: None }).expect("begins");
        serve(&mut handles, FileOp::Write { handle: 1, data: b"half".to_vec() }).expect("writes");
        assert_eq!(download(&mut handles, "kept"), Ok(b"old".to_vec()));
        assert_eq!(listed(&handles, None, true, 10), ["kept"]);
        serve(&mut handles, FileOp::Close { handle: 1 }).expect("closes");
        assert_eq!(tree(dir.path()), ["kept"]);
    }
    upload(&mut handles, "kept", &[b"new"]).expect("replaces");
    assert_eq!(download(&mut handles, "kept"), Ok(b"new".to_vec()));
    assert_eq!(tree(dir.path()), ["kept"]);
}

#[test]
fn nothing_is_read_written_removed_or_listed_outside_or_through_a_link() {
    let (dir, mut handles) = desk(1 << 20);
    let outside = tempfile::tempdir().expect("creates");
    std::fs::write(outside.path().join("secret"), "s").expect("writes");
    symlink(outside.path(), dir.path().join("out")).expect("links");
    symlink(outside.path().join("secret"), dir.path().join("link")).expect("links");
    for resolves in [true, false] {
        for path in ["../x", "/etc/passwd", "a/../../x", "", "a\0b", "a//b", "a\nb", "./a"] {
            assert_eq!(download(&mut handles, path), Err(WhyNot::Failed), "{path:?}");
            assert_eq!(why(upload(&mut handles, path, &[])), WhyNot::Failed, "{path:?}");
            assert_eq!(why(serve(&mut handles, FileOp::Remove { path: path.into() })), WhyNot::Failed, "{path:?}");
        }
        assert_eq!(download(&mut handles, "link"), Err(WhyNot::WrongKind));
        for path in ["out/secret", "link/x"] {
            assert_eq!(download(&mut handles, path), Err(WhyNot::WrongKind), "{path}");
            assert_eq!(why(upload(&mut handles, path, &[])), WhyNot::WrongKind, "{path}");
            assert_eq!(why(serve(&mut handles, FileOp::Remove { path: path.into() })), WhyNot::WrongKind, "{path}");
        }
        let out = list::Wanted { path: Some("out"), recursive: true, after: None, limit: 10 };
        assert_eq!(list::list(&handles, &out).expect_err("refused").why, WhyNot::WrongKind);
        assert_eq!(listed(&handles, None, true, 10), ["link", "out"]);
        if resolves {
            handles.place().walk();
        }
    }
    // A link is replaced and removed as what it is.
    upload(&mut handles, "link", &[b"own"]).expect("replaces");
    serve(&mut handles, FileOp::Remove { path: "out".into() }).expect("removes");
    assert_eq!(tree(dir.path()), ["link"]);
    assert_eq!(std::fs::read(outside.path().join("secret")).expect("reads"), b"s");
}

#[test]
fn what_is_no_regular_file_is_not_read_and_holds_nobody_up() {
    let (dir, mut handles) = desk(1 << 20);
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), Mode::RUSR | Mode::WUSR).expect("makes a pipe");
    let _socket = UnixListener::bind(dir.path().join("socket")).expect("binds");
    std::fs::create_dir(dir.path().join("directory")).expect("creates");
    for path in ["pipe", "socket", "directory"] {
        assert_eq!(download(&mut handles, path), Err(WhyNot::WrongKind), "{path}");
    }
    assert_eq!(download(&mut handles, "absent"), Err(WhyNot::Absent));
    assert_eq!(why(upload(&mut handles, "directory", &[])), WhyNot::WrongKind);
    assert_eq!(why(upload(&mut handles, "pipe/x", &[])), WhyNot::WrongKind);
    upload(&mut handles, "directory/x", &[]).expect("uploads");
    assert_eq!(why(serve(&mut handles, FileOp::Remove { path: "directory".into() })), WhyNot::TooMany);
    for path in ["directory/x", "directory", "pipe", "socket"] {
        serve(&mut handles, FileOp::Remove { path: path.into() }).expect("removes");
    }
    assert_eq!(tree(dir.path()), [""; 0]);
}

#[test]
fn one_byte_over_the_disk_is_refused_and_nothing_is_left() {
    let (dir, mut handles) = desk(10);
    upload(&mut handles, "fits", &[b"0123", b"456789"]).expect("it fits");
    assert_eq!(why(upload(&mut handles, "over", &[b"0123456789", b"x"])), WhyNot::NoSpace);
    let announced = FileOp::Create { handle: 1, path: "over".into(), mode: 0, size: Some(11) };
    assert_eq!(why(serve(&mut handles, announced)), WhyNot::NoSpace);
    assert_eq!(why(serve(&mut handles, FileOp::Write { handle: 1, data: vec![] })), WhyNot::Failed);
    assert_eq!(tree(dir.path()), ["fits"]);
}

#[test]
fn what_the_workload_does_to_a_file_that_is_not_whole_is_not_told_as_success() {
    let (dir, mut handles) = desk(1 << 20);
    let tampers: [fn(&Path); 3] = [
        |beside| std::fs::remove_file(beside).expect("removes"),
        |beside| {
            std::fs::remove_file(beside).expect("removes");
            symlink("/etc/passwd", beside).expect("links");
        },
        |beside| {
            let mut file = std::fs::File::options().append(true).open(beside).expect("opens");
            file.write_all(b"more").expect("writes");
        },
    ];
    for tamper in tampers {
        serve(&mut handles, FileOp::Create { handle: 1, path: "a/b".into(), mode: 0o600, size: None }).expect("begins");
        serve(&mut handles, FileOp::Write { handle: 1, data: b"x".to_vec() }).expect("writes");
        tamper(&dir.path().join(&tree(dir.path())[0]));
        assert_eq!(why(serve(&mut handles, FileOp::Commit { handle: 1 })), WhyNot::Interfered);
        assert_eq!(tree(dir.path()), [""; 0]);
    }
}

#[test]
fn a_file_that_shrinks_or_grows_is_read_as_it_is_now() {
    let (dir, mut handles) = desk(1 << 20);
    upload(&mut handles, "a", &[&[1; 100]]).expect("uploads");
    serve(&mut handles, FileOp::Open { handle: 1, path: "a".into() }).expect("opens");
    let mut read = |offset, bytes| serve(&mut handles, FileOp::Read { handle: 1, offset, bytes });
    std::fs::write(dir.path().join("a"), [2; 10]).expect("shrinks");
    assert_eq!(read(0, 100), Ok(FileDone::Read(vec![2; 10])));
    assert_eq!(read(50, 100), Ok(FileDone::Read(vec![])));
    std::fs::File::options()
        .write(true)
        .open(dir.path().join("a"))
        .and_then(|file| file.set_len(1 << 40))
        .expect("grows");
    assert_eq!(read(1 << 39, u32::MAX), Ok(FileDone::Read(vec![0; FILE_CHUNK_BYTES])));
    assert_eq!(read(u64::MAX, 1).map_err(|refusal| refusal.why), Err(WhyNot::Failed));
}

#[test]
fn names_are_listed_as_bytes_in_one_order_however_they_are_cut_into_parts() {
    let (dir, mut handles) = desk(1 << 20);
    for path in ["b", "a/z", "a/b/c", "a.txt", "line\nend", "a/b.x", "ä"] {
        std::fs::create_dir_all(dir.path().join(path).parent().expect("has one")).expect("creates");
        std::fs::write(dir.path().join(path), path).expect("writes");
    }
    std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").expect("writes");
    let all = ["a", "a/b", "a/b/c", "a/b.x", "a/z", "a.txt", "b", "line\nend", "ä", "\u{fffd}"];
    for limit in 1..=11 {
        assert_eq!(listed(&handles, None, true, limit), all, "{limit}");
        assert_eq!(listed(&handles, Some("a"), true, limit), all[1..5]);
        assert_eq!(listed(&handles, None, false, limit), ["a", "a.txt", "b", "line\nend", "ä", "\u{fffd}"]);
    }
    // What the part before ended with may be gone.
    let gone = Name(b"a/b/bb".to_vec());
    let wanted = list::Wanted { path: None, recursive: true, after: Some(&gone), limit: 1 };
    let Ok(FileDone::Listed { entries, more: true }) = list::list(&handles, &wanted) else { panic!() };
    assert_eq!(entries[0].path.0, b"a/b/c");
    assert_eq!(entries[0].facts.size, 5);
    assert_eq!(download(&mut handles, "line\nend"), Err(WhyNot::Failed));
}

#[test]
fn open_files_are_few_and_their_numbers_are_free_again() {
    let (_dir, mut handles) = desk(1 << 20);
    upload(&mut handles, "a", &[]).expect("uploads");
    let open = |handle| FileOp::Open { handle, path: "a".into() };
    for handle in 0..u32::try_from(MAX_FILE_HANDLES).expect("few") {
        serve(&mut handles, open(handle)).expect("opens");
    }
    assert_eq!(why(serve(&mut handles, open(99))), WhyNot::Failed);
    assert_eq!(why(serve(&mut handles, FileOp::Write { handle: 1, data: vec![] })), WhyNot::Failed);
    serve(&mut handles, FileOp::Close { handle: 0 }).expect("closes");
    assert_eq!(why(serve(&mut handles, open(1))), WhyNot::Failed);
    serve(&mut handles, open(99)).expect("opens");
}
