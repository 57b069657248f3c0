use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

fn hello(name: &'static str) -> Vec<u8> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn at(bytes: &[u8]) -> Option<First> {
    Look::default().at(bytes)
}

#[test]
fn a_client_hello_tells_its_name_however_it_is_cut() {
    let whole = hello("Example.test");
    let expected = Some(First::Tls(Some("example.test".into())));
    assert_eq!(at(&whole), expected);
    let mut look = Look::default();
    for end in 1..whole.len() {
        assert_eq!(look.at(&whole[..end]), None, "{end}");
    }
    assert_eq!(look.at(&whole), expected);
}

#[test]
fn a_client_hello_in_many_records_is_still_one() {
    let whole = hello("example.test");
    let mut cut = Vec::new();
    for part in whole[5..].chunks(7) {
        cut.extend_from_slice(&[0x16, 3, 1, 0, u8::try_from(part.len()).unwrap()]);
        cut.extend_from_slice(part);
    }
    assert_eq!(at(&cut), Some(First::Tls(Some("example.test".into()))));
}

#[test]
fn a_client_hello_for_an_address_names_nothing() {
    assert_eq!(at(&hello("192.0.2.1")), Some(First::Tls(None)));
}

#[test]
fn requests_are_known_by_their_method() {
    for request in ["GET / HTTP/1.1\r\n", "OPTIONS * ", "PROPFIND /", "POST http://x/"] {
        assert_eq!(at(request.as_bytes()), Some(First::Http), "{request}");
    }
    for more in ["", "G", "GET", "PROP", "CONNEC", "\u{16}", "\u{16}\u{3}"] {
        assert_eq!(at(more.as_bytes()), None, "{more}");
    }
    for other in
        ["SSH-2.0-x", "EHLO a", "GETS ", "get /", "PRI * HTTP/2.0", "\0", "\u{16}\u{2}", "\u{16}\u{3}\u{1}\0\u{5}\u{2}"]
    {
        assert_eq!(at(other.as_bytes()), Some(First::Other), "{other}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), tls in any::<bool>()) {
        let mut bytes = bytes;
        if tls {
            bytes.splice(0..0, [0x16, 3, 1]);
        }
        let mut look = Look::default();
        for end in 0..bytes.len() {
            let _ = look.at(&bytes[..end]);
            if look.at(&bytes[..end]).is_some() {
                break;
            }
        }
    }
}
