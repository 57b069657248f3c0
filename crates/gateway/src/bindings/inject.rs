//! Puts a secret into a request.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use model::{binding::may_carry_secret, gateway::Credential, secret::Secret};
use wire::{BindingKind, BindingSpec};
use zeroize::Zeroizing;

use super::{
    client::{self, Roots},
    oauth::{Endpoint, Grant, Tokens},
    sigv4::Signer,
    watch::Watch,
};
use crate::outside::Outside;

/// How the secret goes into a request, with the secret.
#[derive(Debug)]
pub(super) enum Injector {
    /// As a header.
    Header { name: HeaderName, value: HeaderValue },
    /// As a parameter of the query.
    Query { parameter: String, value: Secret },
    /// As a bearer token that is fetched.
    Token(Arc<Tokens>),
    /// As a signature.
    Signature(Signer),
}

/// Everything of a binding that stays when its secret changes.
#[derive(Debug)]
pub(super) struct Fixed<'a> {
    pub(super) spec: &'a BindingSpec,
    pub(super) outside: &'a Arc<Outside>,
    /// What is trusted for a token endpoint.
    pub(super) token_roots: &'a Roots,
    pub(super) watch: &'a Arc<Watch>,
}

impl Injector {
    /// For this secret; or why it cannot be used.
    pub(super) fn new(fixed: &Fixed<'_>, credential: &Credential) -> Result<Self, &'static str> {
        let secret = &credential.value;
        if secret.is_empty() {
            return Err("its secret is empty");
        }
        let bearer_of = |token_url: &str, client_id: &str, grant, refresh| {
            let endpoint = Endpoint::parse(token_url)?;
            let client = client::client(endpoint.origin.clone(), fixed.outside.clone(), fixed.token_roots)?;
            let tokens = Tokens::new(endpoint, client, client_id.to_owned(), grant, refresh, fixed.watch.clone());
            Ok(Self::Token(tokens))
        };
        match &fixed.spec.kind {
            BindingKind::Header { name, template } => {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "its header has no name")?;
                if !may_carry_secret(name.as_str()) {
                    return Err("its header is not for credentials");
                }
                if !template.contains("{secret}") {
                    return Err("its template has no place for the secret");
                }
                let text = Zeroizing::new(template.replace("{secret}", secret.expose()));
                Ok(Self::Header { name, value: sensitive(&text)? })
            }
            BindingKind::Bearer => Ok(Self::Header { name: AUTHORIZATION, value: bearer(secret)? }),
            BindingKind::Basic { username } | BindingKind::Git { username } => {
                let pair = pair(username, secret);
                let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.expose())));
                Ok(Self::Header { name: AUTHORIZATION, value: sensitive(&text)? })
            }
            BindingKind::Query { parameter } => Ok(Self::Query { parameter: parameter.clone(), value: secret.clone() }),
            BindingKind::OAuth2ClientCredentials { token_url, client_id, scopes } => {
                let grant = Grant::Client { secret: secret.clone(), scopes: scopes.clone() };
                bearer_of(token_url, client_id, grant, None)
            }
            BindingKind::OAuth2Refresh { token_url, client_id } => {
                let grant = Grant::Refresh { client_secret: credential.client_secret.clone() };
                bearer_of(token_url, client_id, grant, Some(secret.clone()))
            }
            BindingKind::AwsSigV4 { region, service, access_key_id } => Ok(Self::Signature(Signer {
                region: region.clone(),
                service: service.clone(),
                access_key_id: access_key_id.clone(),
                secret: secret.clone(),
                session_token: credential.session_token.clone(),
            })),
        }
    }

    /// The header that only the binding sets.
    pub(super) fn own_header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header { name, .. } => Some(name),
            Self::Query { .. } | Self::Token(_) | Self::Signature(_) => None,
        }
    }

    /// Whether the service sees the secret, and so could show it.
    pub(super) fn shows_secret(&self) -> bool {
        match self {
            Self::Header { .. } | Self::Query { .. } | Self::Token(_) => true,
            Self::Signature(_) => false,
        }
    }
}

/// Whatever of a credential must not come back.
pub(super) fn watched(kind: &BindingKind, credential: &Credential) -> Vec<Secret> {
    let derived = match kind {
        BindingKind::Basic { username } | BindingKind::Git { username } => {
            // Also the encoded pair, which may be encoded once more.
            let pair = pair(username, &credential.value);
            vec![Secret::from(STANDARD.encode(pair.expose())), pair]
        }
        BindingKind::Header { .. }
        | BindingKind::Bearer
        | BindingKind::Query { .. }
        | BindingKind::OAuth2ClientCredentials { .. }
        | BindingKind::OAuth2Refresh { .. }
        | BindingKind::AwsSigV4 { .. } => Vec::new(),
    };
    let given = [Some(&credential.value), credential.client_secret.as_ref(), credential.session_token.as_ref()];
    given.into_iter().flatten().filter(|secret| !secret.is_empty()).cloned().chain(derived).collect()
}

pub(super) fn bearer(token: &Secret) -> Result<HeaderValue, &'static str> {
    sensitive(&Zeroizing::new(format!("Bearer {}", token.expose())))
}

fn pair(username: &str, password: &Secret) -> Secret {
    Secret::from(format!("{username}:{}", password.expose()))
}

/// Refuses whatever would end the header: a secret with a line break cannot make another one.
fn sensitive(text: &str) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "its secret does not fit into a header")?;
    value.set_sensitive(true);
    Ok(value)
}
