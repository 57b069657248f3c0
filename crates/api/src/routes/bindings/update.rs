//! `PATCH /v1/bindings/{id}`

use axum::{
    Json,
    extract::{Request, State},
};
use wire::{Binding, BindingId, UpdateBinding};

use crate::{
    body::read,
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// Change a binding
///
/// What is absent stays as it is; `allow: []` allows everything, and `budget: {}` bounds nothing. A change of `upstream`,
/// of the type of `kind` or of its `tokenUrl` needs the secret again: a secret goes only to where whoever gave it said.
/// Sessions that run keep what they have.
#[utoipa::path(
    patch, path = "/v1/bindings/{id}", operation_id = "updateBinding", tag = "bindings",
    params(("id" = BindingId, Path, description = "The binding's id.")),
    request_body(content = UpdateBinding, description = "What changes.", content_type = "application/json"),
    responses((status = 200, description = "The binding as it is now.", body = Binding)),
)]
pub(crate) async fn update_binding(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<BindingId>,
    query: Query,
    request: Request,
) -> Result<Json<Binding>, Failure> {
    let asked = read(&app, query, request, UpdateBinding::parse).await?;
    Ok(Json(app.engine().update_binding(&caller, id, asked.what, asked.faults).await?))
}
