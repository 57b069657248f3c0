//! `GET /v1/bindings/{id}`

use axum::{Json, extract::State};
use engine::BindingError;
use wire::{Binding, BindingId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// A binding
///
/// As it is now, without its secret.
#[utoipa::path(
    get, path = "/v1/bindings/{id}", operation_id = "getBinding", tag = "bindings",
    params(("id" = BindingId, Path, description = "The binding's id.")),
    responses((status = 200, description = "The binding.", body = Binding)),
)]
pub(crate) async fn get_binding(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<BindingId>,
    query: Query,
) -> Result<Json<Binding>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().binding(&caller, id).await.map_err(BindingError::from)?))
}
