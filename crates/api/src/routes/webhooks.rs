//! Operations on webhooks out: the log of deliveries, and the secret that messages are signed with.

pub(crate) mod list;
pub(crate) mod retry;
pub(crate) mod rotate;
pub(crate) mod secret;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use wire::DeliveryId;

use crate::{failure::Failure, state::App};

/// The delivery's id in the path. Whatever is not an id is a delivery that does not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(pub(crate) DeliveryId);

impl FromRequestParts<App> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let text = Path::<String>::from_request_parts(parts, app).await.map_err(|_| Failure::no_delivery())?;
        text.parse().map(Self).map_err(|_| Failure::no_delivery())
    }
}
