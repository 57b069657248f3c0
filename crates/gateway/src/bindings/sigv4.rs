//! AWS signature version 4, made anew for every request: what the workload signed with keys of its own is taken away.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use jiff::Timestamp;
use model::secret::Secret;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// What may stand in a canonical request as it is.
const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The body is not part of the signature.
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// The body comes in chunks that are not signed, with a checksum behind them.
const UNSIGNED_CHUNKS: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT_HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Signs requests.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) region: String,
    pub(super) service: String,
    pub(super) access_key_id: String,
    pub(super) secret: Secret,
    pub(super) session_token: Option<Secret>,
}

/// How the body gets into the signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// As this: its digest, or a word.
    Is(String),
    /// Its digest has to be made, of the whole of it.
    Hash,
    /// It is signed in chunks, with a key that is not ours.
    ForeignChunks,
}

/// What is signed, apart from headers.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// Host, and port where it is not the scheme's own.
    pub(super) authority: &'a str,
    /// As it is sent.
    pub(super) path: &'a str,
    /// As [`query`] gives it.
    pub(super) query: &'a str,
}

impl Signer {
    /// What is to be done about the body of a request with these headers.
    pub(super) fn payload(&self, headers: &HeaderMap, is_empty: bool) -> Payload {
        let own = headers.get(&CONTENT_HASH).and_then(|value| value.to_str().ok());
        match own {
            Some(own) if own.len() == 64 && own.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Payload::Is(own.to_owned())
            }
            Some(UNSIGNED_CHUNKS) => Payload::Is(UNSIGNED_CHUNKS.to_owned()),
            Some(own) if own.starts_with("STREAMING-") => Payload::ForeignChunks,
            Some(_) | None if is_empty => Payload::Is(digest(b"")),
            Some(_) | None if self.is_s3() => Payload::Is(UNSIGNED.to_owned()),
            Some(_) | None => Payload::Hash,
        }
    }

    /// Signs: the headers say afterwards who asks. `payload` is the digest of the body, or a word in its place.
    pub(super) fn sign(
        &self,
        headers: &mut HeaderMap,
        asked: &Asked<'_>,
        payload: &str,
        now: Timestamp,
    ) -> Result<(), ()> {
        let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        headers.insert(DATE, HeaderValue::from_str(&stamp).map_err(drop)?);
        if self.is_s3() {
            headers.insert(CONTENT_HASH, HeaderValue::from_str(payload).map_err(drop)?);
        } else {
            headers.remove(CONTENT_HASH);
        }
        if let Some(token) = &self.session_token {
            let mut token = HeaderValue::from_str(token.expose()).map_err(drop)?;
            token.set_sensitive(true);
            headers.insert(SESSION_TOKEN, token);
        }
        let mut signed = vec![("host".to_owned(), asked.authority.to_owned())];
        for name in headers.keys().filter(|name| **name == CONTENT_TYPE || name.as_str().starts_with("x-amz-")) {
            let values: Vec<String> = headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().map(|value| value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")))
                .collect::<Result<_, _>>()
                .map_err(drop)?;
            signed.push((name.as_str().to_owned(), values.join(",")));
        }
        let mut authorization =
            HeaderValue::from_str(&self.authorization(asked, signed, payload, &stamp)).map_err(drop)?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        Ok(())
    }

    fn is_s3(&self) -> bool {
        self.service == "s3" || self.service.starts_with("s3-") || self.service == "s3express"
    }

    fn authorization(
        &self,
        asked: &Asked<'_>,
        mut headers: Vec<(String, String)>,
        payload: &str,
        stamp: &str,
    ) -> String {
        headers.sort();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let mut canonical = format!("{}\n{}\n{}\n", asked.method, self.canonical_path(asked.path), asked.query);
        for (name, value) in &headers {
            let _ = writeln!(canonical, "{name}:{value}");
        }
        let _ = write!(canonical, "\n{names}\n{payload}");

        let day = &stamp[..8];
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", digest(canonical.as_bytes()));
        let first = Zeroizing::new(format!("AWS4{}", self.secret.expose()));
        let mut key = Zeroizing::new(first.as_bytes().to_vec());
        for part in [day, &self.region, &self.service, "aws4_request"] {
            key = Zeroizing::new(mac(&key, part.as_bytes()));
        }
        let signature = hex::encode(mac(&key, to_sign.as_bytes()));
        let id = &self.access_key_id;
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
    }

    /// S3 takes a path as its decoded segments, encoded once; everybody else encodes what is sent once more.
    fn canonical_path(&self, path: &str) -> String {
        let segment = |segment: &str| {
            if self.is_s3() {
                let decoded: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
                percent_encoding::percent_encode(&decoded, UNRESERVED).to_string()
            } else {
                percent_encoding::utf8_percent_encode(segment, UNRESERVED).to_string()
            }
        };
        path.split('/').map(segment).collect::<Vec<_>>().join("/")
    }
}

/// Takes away what a request says of other signatures.
pub(super) fn clean(headers: &mut HeaderMap) {
    headers.remove(DATE);
    headers.remove(SESSION_TOKEN);
    headers.remove(http::header::DATE);
}

/// The query as it is sent and signed: in AWS's order and spelling, and without other signatures.
pub(super) fn query(query: &str) -> String {
    const OTHERS: [&str; 7] = [
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-security-token",
        "x-amz-signature",
        "x-amz-signedheaders",
    ];
    let encode = |text: &[u8]| percent_encoding::percent_encode(text, UNRESERVED).to_string();
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode =
                |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).collect::<Vec<u8>>();
            (encode(&decode(key)), encode(&decode(value)))
        })
        .filter(|(key, _)| !OTHERS.contains(&key.to_ascii_lowercase().as_str()))
        .collect();
    pairs.sort();
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
}

/// The digest of a body, as it is signed.
pub(super) fn digest(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("every length is a key to hmac");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(service: &str, id: &str, secret: &str) -> Signer {
        Signer {
            region: "us-east-1".to_owned(),
            service: service.to_owned(),
            access_key_id: id.to_owned(),
            secret: Secret::from(secret.to_owned()),
            session_token: None,
        }
    }

    /// What AWS publishes as test suite of the algorithm.
    #[test]
    fn aws_test_vectors_are_signed_as_published() {
        let signer = signer("service", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        for (method, path, asked, signature) in [
            ("GET", "/", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "/", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "GET",
                "/",
                "Param2=value2&Param1=value1",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
        ] {
            let mut headers = HeaderMap::new();
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let query = query(asked);
            let asked = Asked { method: &method, authority: "example.amazonaws.com", path, query: &query };
            let now = "2015-08-30T12:36:00Z".parse().unwrap();
            signer.sign(&mut headers, &asked, &digest(b""), now).unwrap();
            assert_eq!(
                headers[AUTHORIZATION].to_str().unwrap(),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                     SignedHeaders=host;x-amz-date, Signature={signature}"
                )
            );
        }
    }

    /// The examples in the documentation of S3.
    #[test]
    fn s3_examples_are_signed_as_documented() {
        let signer = signer("s3", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        for (asked, signature) in [
            ("lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ("prefix=J&max-keys=2", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ] {
            let mut headers = HeaderMap::new();
            let query = query(asked);
            let authority = "examplebucket.s3.amazonaws.com";
            let asked = Asked { method: &Method::GET, authority, path: "/", query: &query };
            let Payload::Is(payload) = signer.payload(&headers, true) else { panic!() };
            signer.sign(&mut headers, &asked, &payload, "2013-05-24T00:00:00Z".parse().unwrap()).unwrap();
            assert!(headers[AUTHORIZATION].to_str().unwrap().ends_with(signature), "{query}");
        }
        assert_eq!(signer.canonical_path("/a%20b/c%2Bd/~e"), "/a%20b/c%2Bd/~e");
    }

    #[test]
    fn bodies_are_hashed_left_out_or_refused() {
        let s3 = signer("s3", "id", "secret");
        let other = signer("dynamodb", "id", "secret");
        let mut headers = HeaderMap::new();
        assert_eq!(s3.payload(&headers, false), Payload::Is(UNSIGNED.to_owned()));
        assert_eq!(other.payload(&headers, false), Payload::Hash);
        assert_eq!(other.payload(&headers, true), Payload::Is(digest(b"")));
        headers.insert(CONTENT_HASH, HeaderValue::from_static("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"));
        assert_eq!(s3.payload(&headers, false), Payload::ForeignChunks);
        headers.insert(CONTENT_HASH, HeaderValue::from_static(UNSIGNED_CHUNKS));
        assert_eq!(s3.payload(&headers, false), Payload::Is(UNSIGNED_CHUNKS.to_owned()));
    }

    #[test]
    fn other_signatures_leave_the_query() {
        assert_eq!(query("b=2+3&X-Amz-Signature=x&a&x-amz-credential=y&c=%7e%2F"), "a=&b=2%203&c=~%2F");
    }
}
