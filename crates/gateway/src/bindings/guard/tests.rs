use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::*};
use flate2::{Compression, write};
use proptest::prelude::*;

use super::*;

const SECRET: &str = "s3cr&t/+ %41\"T0ken\\";

fn forms(secret: &[u8]) -> Arc<Forms> {
    Arc::new(Forms::of([secret]).unwrap())
}

/// What leaves, and whether it was cut.
fn run(guard: &mut Guard, chunks: &[&[u8]]) -> (Vec<u8>, Result<(), Cut>) {
    let mut left = Vec::new();
    let mut all = || {
        for chunk in chunks {
            guard.push(Bytes::copy_from_slice(chunk))?;
            while let Some(bytes) = guard.pop() {
                left.extend_from_slice(&bytes);
            }
        }
        guard.end()?;
        while let Some(bytes) = guard.pop() {
            left.extend_from_slice(&bytes);
        }
        Ok(())
    };
    let ended = all();
    (left, ended)
}

fn cut_into(bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let (mut chunks, mut rest) = (Vec::new(), bytes);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at((*size).clamp(1, rest.len()));
        chunks.push(chunk.to_vec());
        rest = after;
    }
    chunks
}

fn guarded(secret: &[u8], coding: Option<Coding>, body: &[u8], sizes: &[usize]) -> (Vec<u8>, Result<(), Cut>) {
    let chunks = cut_into(body, sizes);
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    run(&mut Guard::new(&forms(secret), coding).unwrap(), &chunks)
}

fn encode(coding: Coding, body: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Gzip => {
            let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Deflate => {
            let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Brotli => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(body).unwrap();
            encoder.into_inner()
        }
    }
}

/// Every way in which an honest service might show a secret, with `before` in front of it.
fn spellings(before: &[u8], secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let whole = [before, secret, b"tail"].concat();
    let text = String::from_utf8_lossy(secret).into_owned();
    let each = |spell: &dyn Fn(u8) -> String| secret.iter().map(|byte| spell(*byte)).collect::<String>().into_bytes();
    let wrapped = STANDARD.encode(&whole).as_bytes().chunks(19).collect::<Vec<_>>().join(&b"\r\n"[..]);
    let mut all = vec![
        ("plain", secret.to_vec()),
        ("base64", STANDARD.encode(&whole).into()),
        ("base64url", URL_SAFE_NO_PAD.encode(&whole).into()),
        ("wrapped", wrapped),
        ("hex", hex::encode(secret).into()),
        ("HEX", hex::encode_upper(secret).into()),
        ("%all", each(&|byte| format!("%{byte:02x}"))),
        ("%ALL", each(&|byte| format!("%{byte:02X}"))),
        ("%needed", percent_encoding::percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string().into()),
        ("form", url::form_urlencoded::byte_serialize(secret).collect::<String>().into()),
        (
            "base64 in url",
            percent_encoding::percent_encode(STANDARD.encode(&whole).as_bytes(), percent_encoding::NON_ALPHANUMERIC)
                .to_string()
                .into(),
        ),
    ];
    if text.is_ascii() {
        all.push((
            "html",
            each(&|byte| if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("&#{byte};") }),
        ));
        all.push(("json", serde_json::to_vec(&text).unwrap()));
        all.push(("json with slashes", serde_json::to_string(&text).unwrap().replace('/', "\\/").into()));
        all.push(("\\u", each(&|byte| format!("\\u{byte:04x}"))));
    }
    all
}

#[test]
fn ordinary_text_is_not_held_up() {
    let mut guard = Guard::new(&forms(b"hunter2hunter2"), None).unwrap();
    for event in ["data: one\n\n", "data: two %41 \\u0041 &amp;\r\n\r\n", ": keep-alive\n\n"] {
        guard.push(Bytes::from_static(event.as_bytes())).unwrap();
        assert_eq!(guard.pop().unwrap(), event);
    }
    guard.push(Bytes::from_static(b"hunt")).unwrap();
    assert_eq!(guard.pop(), None);
    guard.push(Bytes::from_static(b"ing")).unwrap();
    let (first, second) = (guard.pop().unwrap(), guard.pop().unwrap());
    assert_eq!((&first[..], &second[..]), (&b"hunt"[..], &b"ing"[..]));
}

#[test]
fn the_first_byte_of_a_secret_never_leaves() {
    for (form, spelled) in spellings(b"", SECRET.as_bytes()) {
        let body = [b"before <", &spelled[..], b"> after"].concat();
        for size in 1..body.len() {
            let (left, ended) = guarded(SECRET.as_bytes(), None, &body, &[size]);
            assert_eq!(ended, Err(Cut::Reflected), "{form} in pieces of {size}");
            let common = left.iter().zip(&body).filter(|(left, body)| left == body).count();
            // Base64 has up to two characters that say something of the secret and of what stands before it.
            assert!(common == left.len() && left.len() <= "before <\"".len() + 2, "{form} in pieces of {size}");
        }
    }
}

#[test]
fn a_flush_of_an_encoder_is_passed_on_at_once() {
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli] {
        let mut guard = Guard::new(&forms(b"hunter2hunter2"), Some(coding)).unwrap();
        let mut sent = 0;
        let mut left = 0;
        let mut gz = write::GzEncoder::new(Vec::new(), Compression::default());
        let mut zlib = write::ZlibEncoder::new(Vec::new(), Compression::default());
        let mut br = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
        for event in 0..20 {
            let event = format!("data: {event}\n\n");
            let so_far = match coding {
                Coding::Gzip => {
                    gz.write_all(event.as_bytes()).and_then(|()| gz.flush()).unwrap();
                    gz.get_ref()
                }
                Coding::Deflate => {
                    zlib.write_all(event.as_bytes()).and_then(|()| zlib.flush()).unwrap();
                    zlib.get_ref()
                }
                Coding::Brotli => {
                    br.write_all(event.as_bytes()).and_then(|()| br.flush()).unwrap();
                    br.get_ref()
                }
            };
            guard.push(Bytes::copy_from_slice(&so_far[sent..])).unwrap();
            sent = so_far.len();
            while let Some(bytes) = guard.pop() {
                left += bytes.len();
            }
            assert_eq!(left, sent, "{coding:?}");
        }
    }
}

#[test]
fn what_is_not_encoded_as_it_says_is_cut() {
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli] {
        let body = encode(coding, &b"some text that is long enough to be cut ".repeat(9));
        let ended = |body: &[u8]| guarded(SECRET.as_bytes(), Some(coding), body, &[7]).1;
        assert_eq!(ended(&body), Ok(()), "{coding:?}");
        assert_eq!(ended(b""), Ok(()), "{coding:?}");
        assert_eq!(ended(&body[..body.len() - 3]), Err(Cut::Undecodable), "{coding:?}");
        assert_eq!(ended(&[&body[..], b"more"].concat()), Err(Cut::Undecodable), "{coding:?}");
        assert_eq!(ended(b"<html>no such coding</html>"), Err(Cut::Undecodable), "{coding:?}");
    }
    // Gzip may have several members, and the secret may be in any; deflate may come without its header.
    let two = [encode(Coding::Gzip, b"one"), encode(Coding::Gzip, SECRET.as_bytes())].concat();
    assert_eq!(guarded(SECRET.as_bytes(), Some(Coding::Gzip), &two, &[9]).1, Err(Cut::Reflected));
    let mut bare = write::DeflateEncoder::new(Vec::new(), Compression::default());
    bare.write_all(SECRET.as_bytes()).unwrap();
    assert_eq!(guarded(SECRET.as_bytes(), Some(Coding::Deflate), &bare.finish().unwrap(), &[1]).1, Err(Cut::Reflected));
}

#[test]
fn bombs_are_cut() {
    let bomb = encode(Coding::Brotli, &vec![0; 66 << 20]);
    assert!(bomb.len() < 1000);
    assert_eq!(guarded(b"hunter2hunter2", Some(Coding::Brotli), &bomb, &[4096]).1, Err(Cut::Bomb));
    // Empty blocks without end, while the beginning of a form is held.
    let mut held = vec![0x00, 4, 0, 0xfb, 0xff];
    held.extend_from_slice(b"hunt");
    held.extend([0x00, 0, 0, 0xff, 0xff].repeat(300_000));
    assert_eq!(guarded(b"hunter2hunter2", Some(Coding::Deflate), &held, &[65536]).1, Err(Cut::Bomb));
}

#[test]
fn later_secrets_are_looked_for_as_well() {
    let mut guard = Guard::new(&forms(b"the-old-secret"), None).unwrap();
    guard.push(Bytes::from_static(b"text the-old")).unwrap();
    for turn in 0..9 {
        guard.also(&forms(format!("the-new-secret-{turn}").as_bytes()));
    }
    assert_eq!(guard.pop().unwrap(), "text ");
    guard.push(Bytes::from_static(b" no, the-old")).unwrap();
    assert_eq!(guard.push(Bytes::from_static(b"-secret")), Err(Cut::Reflected));
    let mut guard = Guard::new(&forms(b"the-old-secret"), None).unwrap();
    guard.also(&forms(b"the-new-secret"));
    assert_eq!(guard.push(Bytes::from_static(b"the-new-secret")), Err(Cut::Reflected));
}

#[test]
fn a_short_secret_with_a_line_break_is_found_in_every_form() {
    let secret = b"ab\ncdefg";
    for (form, spelled) in spellings(b"", secret) {
        assert_eq!(guarded(secret, None, &spelled, &[1]).1, Err(Cut::Reflected), "{form}");
    }
}

#[test]
fn a_long_secret_has_a_small_automaton_and_is_found() {
    let secret: String = (0..16 * 1024u32).map(|at| char::from_u32(97 + at * at % 26).unwrap()).collect();
    for (form, spelled) in spellings(b"x", secret.as_bytes()) {
        assert_eq!(guarded(secret.as_bytes(), None, &spelled, &[1000]).1, Err(Cut::Reflected), "{form}");
    }
}

proptest! {
    // Each case is some sixty bodies.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_secret_is_found_in_every_form_at_every_place_in_all_pieces(
        secret in prop_oneof!["[ -~]{8,40}".prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 8..40)],
        before in proptest::collection::vec(any::<u8>(), 0..70),
        sizes in proptest::collection::vec(1usize..50, 1..8),
    ) {
        for (form, spelled) in spellings(&before, &secret) {
            let body = [&before[..], &spelled, b" and more"].concat();
            let (left, ended) = guarded(&secret, None, &body, &sizes);
            prop_assert_eq!(ended, Err(Cut::Reflected), "{}", form);
            prop_assert!(body.starts_with(&left));
            for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli] {
                let ended = guarded(&secret, Some(coding), &encode(coding, &body), &sizes).1;
                prop_assert_eq!(ended, Err(Cut::Reflected), "{} in {:?}", form, coding);
            }
        }
    }
}

proptest! {
    #[test]
    fn what_carries_no_secret_passes_as_it_is(
        secret in proptest::collection::vec(any::<u8>(), 8..40),
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..2000),
            "([a-c]|%41|%|\\\\|\\\\u0062|&amp;|&|\r|\n){0,300}".prop_map(String::into_bytes),
        ],
        sizes in proptest::collection::vec(1usize..90, 1..8),
    ) {
        let (left, ended) = guarded(&secret, None, &body, &sizes);
        prop_assert_eq!(ended, Ok(()));
        prop_assert_eq!(&left, &body);
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli] {
            let encoded = encode(coding, &body);
            let (left, ended) = guarded(&secret, Some(coding), &encoded, &sizes);
            prop_assert_eq!(ended, Ok(()));
            prop_assert_eq!(left, encoded);
        }
    }

    #[test]
    fn pieces_make_no_difference(
        secret in "[ab%&\\\\\n]{3,6}",
        body in "([ab]|%61|%|\\\\|\\\\u0062|&#97;|&|\r\n|\n){0,40}",
        sizes in proptest::collection::vec(1usize..9, 1..8),
    ) {
        let whole = guarded(secret.as_bytes(), None, body.as_bytes(), &[usize::MAX]).1;
        let (left, ended) = guarded(secret.as_bytes(), None, body.as_bytes(), &sizes);
        prop_assert_eq!(ended, whole);
        prop_assert!(body.as_bytes().starts_with(&left));
        if body.contains(&secret) {
            prop_assert_eq!(ended, Err(Cut::Reflected));
        }
    }
}
