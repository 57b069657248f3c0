//! `PUT /v1/bindings/{id}/secret`

use axum::{
    Json,
    extract::{Request, State},
};
use wire::{Binding, BindingId, BindingSecret};

use crate::{
    body::read,
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// Replace a binding's secret
///
/// Sessions that run with the binding use the new secret from their next call on, unless the binding was led elsewhere
/// since they started.
#[utoipa::path(
    put, path = "/v1/bindings/{id}/secret", operation_id = "rotateBinding", tag = "bindings",
    params(("id" = BindingId, Path, description = "The binding's id.")),
    request_body(content = BindingSecret, description = "The new secret.", content_type = "application/json"),
    responses((status = 200, description = "The binding, with its next `secretVersion`.", body = Binding)),
)]
pub(crate) async fn rotate_binding(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<BindingId>,
    query: Query,
    request: Request,
) -> Result<Json<Binding>, Failure> {
    let asked = read(&app, query, request, BindingSecret::parse).await?;
    Ok(Json(app.engine().rotate_binding(&caller, id, asked.what, asked.faults).await?))
}
