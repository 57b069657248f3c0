use proptest::prelude::*;

use super::*;

/// How the bytes are cut into pieces that go through, when they come in parts of this size.
fn through(bytes: &[u8], part: usize) -> Result<(Vec<u8>, Framing), Fault> {
    let mut framing = Framing::default();
    let mut raw = Vec::new();
    let mut out = Vec::new();
    for chunk in bytes.chunks(part) {
        raw.extend_from_slice(chunk);
        loop {
            let through = framing.advance(&raw)?;
            if through == 0 {
                break;
            }
            out.extend(raw.drain(..through));
        }
    }
    Ok((out, framing))
}

fn fault(bytes: &str) -> Fault {
    let faults: Vec<Fault> = [1, 3, 1 << 20].map(|part| through(bytes.as_bytes(), part).unwrap_err()).into();
    assert!(faults.iter().all(|fault| *fault == faults[0]), "{faults:?}");
    faults[0]
}

#[test]
fn well_framed_requests_go_through_however_they_are_cut() {
    let requests = concat!(
        "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0A\r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\nZ: a\r\n\r\n",
        "DELETE / HTTP/1.0\r\n\r\n",
    );
    for part in 1..requests.len() {
        assert_eq!(through(requests.as_bytes(), part), Ok((requests.as_bytes().to_vec(), Framing::Head)), "{part}");
    }
}

#[test]
fn behind_connect_everything_goes_through() {
    let bytes = b"CONNECT a.test:443 HTTP/1.1\r\n\r\n\x16\x03\x01\n\n\r";
    assert_eq!(through(bytes, 4), Ok((bytes.to_vec(), Framing::Tunnel)));
}

#[test]
fn what_servers_frame_in_different_ways_is_refused() {
    let post = |headers: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
    for (headers, expected) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "both Content-Length and Transfer-Encoding"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", "both Content-Length and Transfer-Encoding"),
        ("Content-Length: 5\r\nContent-Length: 5", "more than one Content-Length"),
        ("Content-Length: 5\r\nContent-Length: 6", "more than one Content-Length"),
        ("Content-Length: 5, 5", "a Content-Length that is no number"),
        ("Content-Length: +5", "a Content-Length that is no number"),
        ("Content-Length: -5", "a Content-Length that is no number"),
        ("Content-Length: 0x5", "a Content-Length that is no number"),
        ("Content-Length:", "a Content-Length that is no number"),
        ("Content-Length: 99999999999999999999", "a Content-Length that is no number"),
        ("Content_Length: 5", "a header that looks like a length"),
        ("Transfer-Encoding: gzip, chunked", "a Transfer-Encoding other than chunked"),
        ("Transfer-Encoding: xchunked", "a Transfer-Encoding other than chunked"),
        ("Transfer-Encoding: chunked, identity", "a Transfer-Encoding other than chunked"),
        ("Transfer-Encoding: \u{b}chunked", "a malformed head"),
        ("Transfer-Encoding : chunked", "a malformed head"),
        (" Transfer-Encoding: chunked", "a malformed head"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "more than one Transfer-Encoding"),
        ("X: y\r\n Transfer-Encoding: chunked", "a malformed head"),
        ("X: y\rTransfer-Encoding: chunked", "a bare carriage return"),
        ("X: y\nTransfer-Encoding: chunked", "a bare line feed"),
        ("X\u{0}: y", "a malformed head"),
    ] {
        assert_eq!(fault(&post(headers)), expected, "{headers:?}");
    }
    assert_eq!(fault("GET / HTTP/1.1\n\n"), "a bare line feed");
    assert_eq!(fault("GET / HTTP/2.0\r\n\r\n"), "a malformed head");
    assert_eq!(fault("GET  / HTTP/1.1\r\n\r\n"), "a malformed head");
    assert_eq!(
        fault("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "a Transfer-Encoding other than chunked"
    );
    assert_eq!(fault("CONNECT a:1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), "CONNECT with a body");
}

#[test]
fn chunks_that_could_end_elsewhere_are_refused() {
    let chunked = |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    for (body, expected) in [
        ("5\r\nhelloX\r\n", "a chunk without an end"),
        ("5\r\nhello\n", "a chunk without an end"),
        ("5\nhello", "a bare line feed"),
        ("5 \r\nhello", "a chunk without a length"),
        ("0x5\r\nhello", "a chunk without a length"),
        ("-1\r\n", "a chunk without a length"),
        ("\r\n", "a chunk without a length"),
        ("5;\u{0}\r\n", "a chunk without a length"),
        ("fffffffffffffffff\r\n", "a chunk without a length"),
        ("0\r\nX: y\n\r\n", "a bare line feed"),
    ] {
        assert_eq!(fault(&chunked(body)), expected, "{body:?}");
    }
    assert_eq!(fault(&chunked(&format!("5;{}", "x".repeat(2000)))), "a chunk without a length");
    assert_eq!(fault(&chunked(&format!("0\r\n{}", "X: y\r\n".repeat(5000)))), "trailers without an end");
}

#[test]
fn heads_are_bounded() {
    let many: String = (0..=MAX_HEADERS).map(|number| format!("x{number}: y\r\n")).collect();
    assert_eq!(fault(&format!("GET / HTTP/1.1\r\n{many}\r\n")), "too many headers");
    let long = through(format!("GET /{}", "x".repeat(MAX_HEAD_BYTES)).as_bytes(), 1 << 12).unwrap_err();
    assert_eq!(long, "a head that is too long");
}

proptest! {
    #[test]
    fn nothing_is_added_or_held_back_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..400), part in 1_usize..50) {
        if let Ok((out, _)) = through(&bytes, part) {
            prop_assert!(bytes.starts_with(&out));
        }
    }

    #[test]
    fn cutting_changes_nothing(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("GET / HTTP/1.1\r\n"), Just("POST / HTTP/1.1\r\n"), Just("Host: a\r\n"), Just("\r\n"), Just("\n"),
                Just("Content-Length: 3\r\n"), Just("Transfer-Encoding: chunked\r\n"), Just("abc"), Just("3\r\n"),
                Just("0\r\n"), Just("CONNECT a:1 HTTP/1.1\r\n"),
            ],
            0..20,
        ),
        part in 1_usize..40,
    ) {
        let bytes = pieces.concat();
        prop_assert_eq!(through(bytes.as_bytes(), part), through(bytes.as_bytes(), 1));
    }
}
