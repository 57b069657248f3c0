//! The flat list of routes. The router that serves and the document that describes come from it alone.

use axum::{Router, middleware, response::Response};
use engine::Engine;
use utoipa::openapi::OpenApi;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt},
    routes,
};
use wire::ErrorCode;

use crate::{
    access::Operation,
    failure::Failure,
    front::front,
    gate::{Gate, gate},
    openapi,
    routes::{artifacts, backends, bindings, docs, files, health, openapi as document, readiness, sessions},
    settings::Settings,
    state::App,
};

type Route = (Operation, UtoipaMethodRouter<App>);

fn all() -> Vec<Route> {
    vec![
        (Operation::GetHealth, routes!(health::get_health)),
        (Operation::GetReadiness, routes!(readiness::get_readiness)),
        (Operation::GetOpenApi, routes!(document::get_openapi)),
        (Operation::GetDocs, routes!(docs::get_docs)),
        (Operation::ListBackends, routes!(backends::list_backends)),
        (Operation::CreateSession, routes!(sessions::create::create_session)),
        (Operation::ListSessions, routes!(sessions::list::list_sessions)),
        (Operation::GetSession, routes!(sessions::get::get_session)),
        (Operation::DeleteSession, routes!(sessions::delete::delete_session)),
        (Operation::GetSessionResult, routes!(sessions::result::get_session_result)),
        (Operation::StreamSession, routes!(sessions::stream::stream_session)),
        (Operation::GetSessionAudit, routes!(sessions::audit::get_session_audit)),
        (Operation::ListFiles, routes!(files::list::list_files)),
        (Operation::ReadFile, routes!(files::get::read_file)),
        (Operation::WriteFile, routes!(files::put::write_file)),
        (Operation::DeleteFile, routes!(files::delete::delete_file)),
        (Operation::ListArtifacts, routes!(artifacts::list::list_artifacts)),
        (Operation::GetArtifact, routes!(artifacts::get::get_artifact)),
        (Operation::CreateBinding, routes!(bindings::create::create_binding)),
        (Operation::ListBindings, routes!(bindings::list::list_bindings)),
        (Operation::GetBinding, routes!(bindings::get::get_binding)),
        (Operation::UpdateBinding, routes!(bindings::update::update_binding)),
        (Operation::DeleteBinding, routes!(bindings::delete::delete_binding)),
        (Operation::RotateBinding, routes!(bindings::rotate::rotate_binding)),
    ]
}

/// The whole API over `engine`.
///
/// # Panics
///
/// When a route is not the operation that it is listed as: such a server must not start.
pub fn router(engine: Engine, settings: Settings) -> Router {
    let app = App::new(engine, settings);
    let mut router = OpenApiRouter::<App>::default();
    for (operation, route) in all() {
        check(operation, &route);
        let gate_of = Gate { app: app.clone(), operation };
        router = router.routes(route.map(|methods| methods.route_layer(middleware::from_fn_with_state(gate_of, gate))));
    }
    let (router, _) = router.split_for_parts();
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(app.clone(), front))
        .with_state(app)
}

/// The document that describes [`router`].
pub(crate) fn document() -> OpenApi {
    let mut router = OpenApiRouter::<App>::with_openapi(openapi::base());
    for (operation, mut route) in all() {
        check(operation, &route);
        openapi::complete(operation, &mut route.1);
        router = router.routes(route);
    }
    openapi::finish(router.into_openapi())
}

/// A route is exactly one operation, the one that the table has under its name.
fn check(operation: Operation, (_, paths, _): &UtoipaMethodRouter<App>) {
    let documented: Vec<_> = paths.paths.values().flat_map(openapi::operations).collect();
    let ids: Vec<_> = documented.iter().map(|documented| documented.operation_id.as_deref()).collect();
    assert_eq!(ids, [Some(operation.id())], "a route is listed under another operation than its own");
}

async fn nothing_here() -> Response {
    refuse(ErrorCode::NotFound, "there is nothing at this path")
}

async fn no_such_method() -> Response {
    refuse(ErrorCode::MethodNotAllowed, "this path has no such method; Allow names those it has")
}

fn refuse(code: ErrorCode, detail: &str) -> Response {
    axum::response::IntoResponse::into_response(Failure::new(code, detail))
}
