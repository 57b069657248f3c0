use proptest::prelude::*;

use super::*;

fn record(kind: u8, path: &[u8], size: u64, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(path.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, &size.to_be_bytes(), path, content].concat()
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    record(b'f', path.as_bytes(), content.len() as u64, content)
}

fn end(count: u64) -> Vec<u8> {
    record(b'e', b"", count, b"")
}

/// Reads it in pieces of this size.
fn read(bytes: &[u8], piece: usize) -> Result<Spool, TreeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut reader = Reader::new(1000).await?;
        for part in bytes.chunks(piece) {
            reader.push(part).await?;
        }
        reader.finish().await
    })
}

fn refused(bytes: &[u8]) -> String {
    read(bytes, usize::MAX).expect_err("refused").to_string()
}

#[tokio::test]
async fn a_tree_is_the_same_however_it_is_cut() {
    let whole = [
        file("a/b.py", b"print(1)"),
        record(b'x', b"tool", 0, b""),
        record(b'l', b"a/link", 7, b"../tool"),
        file("z", &[7; 500]),
        end(4),
    ]
    .concat();
    for piece in [1, 2, 3, 13, 14, 100, 10_000] {
        let mut reader = Reader::new(1000).await.unwrap();
        for part in whole.chunks(piece) {
            reader.push(part).await.unwrap();
        }
        let mut tree = reader.finish().await.unwrap();
        let entries = tree.entries().to_vec();
        let shown: Vec<_> = entries.iter().map(|entry| (entry.path.as_str(), entry.kind, entry.size)).collect();
        let expected = [
            ("a/b.py", Kind::File, 8),
            ("tool", Kind::Executable, 0),
            ("a/link", Kind::Link, 7),
            ("z", Kind::File, 500),
        ];
        assert_eq!((shown.as_slice(), tree.bytes()), (expected.as_slice(), 515));
        assert_eq!(tree.read(&entries[3], 490, 100).await.unwrap(), [7; 10]);
        assert_eq!(tree.read(&entries[0], 0, 5).await.unwrap(), b"print");
        assert_eq!(tree.read(&entries[2], 0, 100).await.unwrap(), b"../tool");
    }
}

#[test]
fn names_that_no_honest_clone_sends_are_refused() {
    for (path, words) in [
        (&b"../x"[..], "no .."),
        (b"/etc/shadow", "must be relative"),
        (b"a/./b", "no ."),
        (b"", "must not be empty"),
        (b"a\nb", "control characters"),
        (b"a\0", "control characters"),
        (b"\xff", "not UTF-8"),
        (b".git/hooks/post-checkout", ".git"),
        (b"sub/.GIT/config", ".git"),
        (b"a/.git. /x", ".git"),
        (&[b'a'; 1025], "at most 1024 bytes"),
    ] {
        let told = refused(&[record(b'f', path, 1, b"x"), end(1)].concat());
        assert!(told.contains(words), "{path:?}: {told}");
    }
}

#[test]
fn links_that_lead_out_are_refused() {
    for target in [&b"/etc/shadow"[..], b"../x", b"a/../../x", b"", b"\xff", &[b'a'; 1025]] {
        let told = refused(&[record(b'l', b"link", target.len() as u64, target), end(1)].concat());
        assert_eq!(told, "a link leads out", "{target:?}");
    }
}

#[test]
fn sizes_counts_and_kinds_are_bounded() {
    assert_eq!(refused(&record(b'f', b"big", 1001, b"")), "it has more than 1000 bytes");
    assert_eq!(refused(&[file("a", b"x"), record(b'f', b"b", u64::MAX, b"")].concat()), "it has more than 1000 bytes");
    assert_eq!(refused(&record(b'd', b"device", 0, b"")), "an unknown kind of record");
    for cut in [file("a", b"x"), end(1), [end(0), end(0)].concat(), [end(0), vec![0]].concat(), vec![b'f'], vec![]] {
        assert_eq!(refused(&cut), "it is cut short, or goes on behind its end", "{cut:?}");
    }
    for twice in [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]] {
        let told = refused(&[file(twice[0], b""), file(twice[1], b""), end(2)].concat());
        assert_eq!(told, "a name is there twice, or as a file and as a directory", "{twice:?}");
    }
    let many: Vec<u8> = (0..=MAX_FILES).flat_map(|n| file(&n.to_string(), b"")).collect();
    assert!(refused(&many).contains("more than 50000 files"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), piece in 1_usize..20) {
        let _ = read(&bytes, piece);
    }

    #[test]
    fn what_is_taken_can_be_put(path in "[a./]{0,8}", target in "[a./]{0,8}") {
        let link = record(b'l', path.as_bytes(), target.len() as u64, target.as_bytes());
        if let Ok(tree) = read(&[link, end(1)].concat(), 3) {
            prop_assert!(path::check(&tree.entries()[0].path).is_ok());
            prop_assert!(path::link_stays_inside(&path, &target));
        }
    }
}
