//! Service bindings: named external services whose secret the gateway adds and the workload never sees.

mod read;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{BindingId, OrgId, Timestamp};

/// How a binding's secret goes into a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum BindingKind {
    /// A header of any name.
    Header {
        /// Its name.
        #[schema(example = "x-api-key")]
        name: String,
        /// Its value, with `{secret}` where the secret goes.
        #[serde(default = "just_the_secret")]
        #[schema(example = "Token {secret}")]
        template: String,
    },
    /// `Authorization: Bearer <secret>`.
    #[default]
    Bearer,
    /// HTTP basic authentication, with the secret as the password.
    Basic {
        /// The user.
        username: String,
    },
    /// A query parameter.
    Query {
        /// Its name.
        parameter: String,
    },
    /// A bearer token that the gateway gets with client credentials; the secret is the client's.
    #[serde(rename = "oauth2_client_credentials")]
    OAuth2ClientCredentials {
        /// Where tokens are to be had, `https` or `http`.
        #[serde(rename = "tokenUrl")]
        token_url: String,
        /// The client's id.
        #[serde(rename = "clientId")]
        client_id: String,
        /// Scopes to ask for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        scopes: Vec<String>,
    },
    /// A bearer token that the gateway gets with a refresh token, which is the secret.
    #[serde(rename = "oauth2_refresh")]
    OAuth2Refresh {
        /// Where tokens are to be had, `https` or `http`.
        #[serde(rename = "tokenUrl")]
        token_url: String,
        /// The client's id.
        #[serde(rename = "clientId")]
        client_id: String,
    },
    /// AWS signature version 4; the secret is the secret access key.
    #[serde(rename = "aws_sigv4")]
    AwsSigV4 {
        /// The region.
        #[schema(example = "eu-central-1")]
        region: String,
        /// The service.
        #[schema(example = "s3")]
        service: String,
        /// The access key's id.
        #[serde(rename = "accessKeyId")]
        access_key_id: String,
    },
    /// Git over HTTP, for `source` and for `git` in the workload: basic authentication, with the secret as the password.
    Git {
        /// The user; what it is rarely matters.
        #[serde(default = "git_user")]
        username: String,
    },
}

impl BindingKind {
    /// The word in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Header { .. } => "header",
            Self::Bearer => "bearer",
            Self::Basic { .. } => "basic",
            Self::Query { .. } => "query",
            Self::OAuth2ClientCredentials { .. } => "oauth2_client_credentials",
            Self::OAuth2Refresh { .. } => "oauth2_refresh",
            Self::AwsSigV4 { .. } => "aws_sigv4",
            Self::Git { .. } => "git",
        }
    }

    /// Where tokens are to be had, for the kinds that need some.
    pub fn token_url(&self) -> Option<&str> {
        match self {
            Self::OAuth2ClientCredentials { token_url, .. } | Self::OAuth2Refresh { token_url, .. } => Some(token_url),
            Self::Header { .. }
            | Self::Bearer
            | Self::Basic { .. }
            | Self::Query { .. }
            | Self::AwsSigV4 { .. }
            | Self::Git { .. } => None,
        }
    }
}

fn just_the_secret() -> String {
    "{secret}".to_owned()
}

fn git_user() -> String {
    "x-access-token".to_owned()
}

/// The one service that a binding leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingUpstream {
    /// Scheme, host, port and base path. The path of a request goes behind the base path.
    #[schema(example = "https://api.example.com/v1")]
    pub url: String,
    /// Certificates (PEM) to trust for it, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

/// What may be asked of it. What no entry allows is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingAllow {
    /// Methods; every one when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Paths below the base path, starting with `/`; `*` stands for a part of one segment, `**` for any number of
    /// segments. Every one when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

/// How much of it one session may use. What is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingBudget {
    /// Calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Bytes of bodies, in both directions together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The time in which both are counted, in milliseconds, from the first call in it; the session's life when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u64>,
}

/// A binding's secret. Goes in and never comes out: no answer has a field of this type. Clients write it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingSecret {
    /// The token, password, client secret, refresh token or secret access key.
    #[schema(write_only, min_length = 8, max_length = 16384)]
    pub value: String,
    /// `oauth2_refresh`: the client's secret, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub client_secret: Option<String>,
    /// `aws_sigv4`: the session token, if the key is a temporary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub session_token: Option<String>,
}

impl std::fmt::Debug for BindingSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BindingSecret(…)")
    }
}

/// A request for a binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateBinding {
    /// What it is.
    #[serde(flatten)]
    pub spec: BindingSpec,
    /// Its secret.
    pub secret: BindingSecret,
}

/// A change of a binding. What is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateBinding {
    /// How the secret goes into a request, from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<BindingKind>,
    /// Where requests go from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<BindingUpstream>,
    /// What may be asked from now on; everything when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<BindingAllow>>,
    /// How much of it one session may use from now on; an empty one bounds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BindingBudget>,
    /// Its secret from now on. Needed when `upstream`, the type of `kind` or its `tokenUrl` changes: a secret goes only
    /// to where whoever gave it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BindingSecret>,
}

/// What a binding is, apart from its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BindingSpec {
    /// 1 to 40 of a-z, 0-9 and `-`, starting with a letter; unique in the org. The workload finds the service at
    /// `http://<name>.enclave.internal`, and that in `ENCLAVE_SVC_<NAME>`, with `_` for `-`.
    #[schema(example = "github")]
    pub name: String,
    /// How the secret goes into a request.
    pub kind: BindingKind,
    /// Where requests go.
    pub upstream: BindingUpstream,
    /// What may be asked; everything when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<BindingAllow>,
    /// How much of it one session may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BindingBudget>,
}

/// A binding, as callers see it: there is no field that could hold its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Its id.
    pub id: BindingId,
    /// The org that owns it.
    pub org_id: OrgId,
    /// What it is.
    #[serde(flatten)]
    pub spec: BindingSpec,
    /// How often its secret was set.
    pub secret_version: u64,
    /// When its secret was last set.
    pub rotated_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed, its secret apart.
    pub updated_at: Timestamp,
}

/// One page of bindings, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BindingPage {
    /// The bindings.
    pub items: Vec<Binding>,
    /// Give this as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
