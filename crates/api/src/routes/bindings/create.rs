//! `POST /v1/bindings`

use axum::{
    extract::{Request, State},
    response::Response,
};
use wire::{Binding, CreateBinding};

use crate::{body::read, failure::Failure, gate::Identity, query::Query, routes::created, state::App};

/// Create a binding
///
/// Its secret is sealed before it is stored, goes to the gateways of sessions that use the binding and nowhere else, and is
/// in no answer.
#[utoipa::path(
    post, path = "/v1/bindings", operation_id = "createBinding", tag = "bindings",
    request_body(content = CreateBinding, description = "What it is, and its secret.", content_type = "application/json"),
    responses((
        status = 201, description = "The binding.", body = Binding,
        headers(("Location" = String, description = "Path of the binding.")),
    )),
)]
pub(crate) async fn create_binding(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    query: Query,
    request: Request,
) -> Result<Response, Failure> {
    let asked = read(&app, query, request, CreateBinding::parse).await?;
    let binding = app.engine().create_binding(&caller, asked.what, asked.faults).await?;
    Ok(created(&format!("/v1/bindings/{}", binding.id), binding))
}
