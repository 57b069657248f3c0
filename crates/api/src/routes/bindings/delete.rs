//! `DELETE /v1/bindings/{id}`

use axum::{Json, extract::State};
use wire::{Binding, BindingId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// Delete a binding and its secret
///
/// Gives the binding as it was; afterwards it does not exist, and its name is free. Sessions that run with it keep it until
/// they end.
#[utoipa::path(
    delete, path = "/v1/bindings/{id}", operation_id = "deleteBinding", tag = "bindings",
    params(("id" = BindingId, Path, description = "The binding's id.")),
    responses((status = 200, description = "The binding as it was.", body = Binding)),
)]
pub(crate) async fn delete_binding(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<BindingId>,
    query: Query,
) -> Result<Json<Binding>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().delete_binding(&caller, id).await?))
}
