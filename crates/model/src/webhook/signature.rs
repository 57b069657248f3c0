//! Signatures as Standard Webhooks has them: HMAC-SHA256 over id, time and body, with a secret that both sides have.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::secret::{Secret, wipe};

const PREFIX: &str = "whsec_";
const VERSION: &str = "v1,";

/// Bytes of a secret that is made here.
pub const SECRET_BYTES: usize = 32;

/// Signatures of one message that are looked at: a sender that rotates has two or three.
const MAX_SIGNATURES: usize = 8;

/// Header with the message's id.
pub const ID: &str = "webhook-id";
/// Header with the time of the attempt, in seconds since 1970.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// Header with the signatures, separated by spaces.
pub const SIGNATURE: &str = "webhook-signature";

/// A secret that messages are signed with: `whsec_` and base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSecret(Secret);

/// The text is no such secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not whsec_ and base64")]
pub struct NotASecret;

impl SigningSecret {
    /// From random bytes.
    pub fn new(mut bytes: [u8; SECRET_BYTES]) -> Self {
        let secret = Self(format!("{PREFIX}{}", STANDARD.encode(bytes)).into());
        zeroize::Zeroize::zeroize(&mut bytes);
        secret
    }

    /// The secret as it is handed out. Every call is a place where it could leak.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The secret, to be sealed.
    pub fn into_secret(self) -> Secret {
        self.0
    }

    /// The signature of a message.
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        format!("{VERSION}{}", STANDARD.encode(self.mac(id, &seconds.to_string(), body).finalize().into_bytes()))
    }

    /// Whether one of these signatures is that of the message. Takes the same time whatever they are.
    pub fn verifies(&self, id: &str, seconds: &str, body: &[u8], signatures: &str) -> bool {
        let mac = self.mac(id, seconds, body);
        let matches = |signature: &str| {
            let bytes = signature.strip_prefix(VERSION).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
            mac.clone().verify_slice(&bytes).is_ok()
        };
        signatures.split(' ').take(MAX_SIGNATURES).fold(false, |found, signature| found | matches(signature))
    }

    fn mac(&self, id: &str, seconds: &str, body: &[u8]) -> Hmac<Sha256> {
        let text = self.0.expose().strip_prefix(PREFIX).unwrap_or_default();
        let mut key = STANDARD.decode(text).unwrap_or_default();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        wipe(&mut key);
        for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }
}

impl TryFrom<Secret> for SigningSecret {
    type Error = NotASecret;

    fn try_from(secret: Secret) -> Result<Self, NotASecret> {
        let mut key =
            secret.expose().strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok()).ok_or(NotASecret)?;
        let empty = key.is_empty();
        wipe(&mut key);
        if empty { Err(NotASecret) } else { Ok(Self(secret)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification and its libraries' tests.
    const EXAMPLE: (&str, &str, i64, &str, &str) = (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        r#"{"test": 2432232314}"#,
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    );

    fn example() -> SigningSecret {
        Secret::from(EXAMPLE.0.to_owned()).try_into().unwrap()
    }

    #[test]
    fn the_specifications_example_has_its_signature() {
        let (_, id, seconds, body, signature) = EXAMPLE;
        assert_eq!(example().sign(id, seconds, body.as_bytes()), signature);
        let text = seconds.to_string();
        assert!(example().verifies(id, &text, body.as_bytes(), signature));
        assert!(example().verifies(id, &text, body.as_bytes(), &format!("v1,AAAA v2,x {signature}")));
    }

    #[test]
    fn any_change_is_found() {
        let (_, id, seconds, body, signature) = EXAMPLE;
        let (seconds, body) = (seconds.to_string(), body.as_bytes());
        let secret = example();
        assert!(!secret.verifies("msg_", &seconds, body, signature));
        assert!(!secret.verifies(id, "1614265331", body, signature));
        assert!(!secret.verifies(id, &seconds, b"{}", signature));
        assert!(!SigningSecret::new([7; SECRET_BYTES]).verifies(id, &seconds, body, signature));
        for other in ["", "v1,", "v1", &signature[3..], &signature[..20], &signature.replace("v1", "v2"), "v1,!"] {
            assert!(!secret.verifies(id, &seconds, body, other), "{other}");
        }
        let far = format!("{}{signature}", "v1,AAAA ".repeat(MAX_SIGNATURES));
        assert!(!secret.verifies(id, &seconds, body, &far), "signatures are looked at up to a bound");
    }

    #[test]
    fn a_secret_has_its_form_and_is_not_printed() {
        let secret = SigningSecret::new([7; SECRET_BYTES]);
        assert!(secret.expose().starts_with("whsec_Bwc"));
        assert!(!format!("{secret:?}").contains("Bwc"));
        for other in ["", "whsec_", "whsec_!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert_eq!(SigningSecret::try_from(Secret::from(other.to_owned())), Err(NotASecret), "{other}");
        }
    }
}
