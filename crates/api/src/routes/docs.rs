//! `GET /docs`: a page that renders the OpenAPI document.
//!
//! One document without anything from elsewhere: script and style stand in it, and the policy allows exactly those two
//! by their hashes. The script puts what it reads into the page as text only.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::header;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("../docs/page.html");
const SCRIPT: &str = include_str!("../docs/app.js");
const STYLE: &str = include_str!("../docs/style.css");

static DOCS: LazyLock<Docs> = LazyLock::new(Docs::build);

struct Docs {
    page: Bytes,
    policy: String,
}

impl Docs {
    fn build() -> Self {
        let page = PAGE.replace("/*style*/", STYLE).replace("/*script*/", SCRIPT);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash(SCRIPT),
            hash(STYLE),
        );
        Self { page: page.into(), policy }
    }
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// A page for people
///
/// Renders `/openapi.json`. Loads nothing from anywhere else.
#[utoipa::path(
    get, path = "/docs", operation_id = "getDocs", tag = "documentation",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub(crate) async fn get_docs() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, DOCS.policy.as_str()),
    ];
    (headers, DOCS.page.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_allows_the_script_and_the_style_as_they_stand_in_the_page() {
        let page = std::str::from_utf8(&DOCS.page).unwrap();
        for (open, close, directive) in [("<script>", "</script>", "script-src"), ("<style>", "</style>", "style-src")]
        {
            let (_, rest) = page.split_once(open).unwrap();
            let (text, rest) = rest.split_once(close).unwrap();
            assert!(DOCS.policy.contains(&format!("{directive} '{}'", hash(text))));
            assert!(!rest.contains(open), "one {open} and no other");
        }
    }

    #[test]
    fn the_page_puts_nothing_into_itself_but_text() {
        for banned in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "http://",
            "https://",
        ] {
            assert!(!SCRIPT.contains(banned), "{banned}");
            assert!(!STYLE.contains(banned), "{banned}");
        }
    }
}
