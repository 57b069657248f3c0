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
    routes::{
        artifacts, backends, bindings, docs, files, fleets, health, hooks, openapi as document, readiness, sessions,
        terminals, triggers, webhooks,
    },
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
        (Operation::CreateTurn, routes!(sessions::turns::create::create_turn)),
        (Operation::ListTurns, routes!(sessions::turns::list::list_turns)),
        (Operation::GetTurn, routes!(sessions::turns::get::get_turn)),
        (Operation::InterruptTurn, routes!(sessions::turns::interrupt::interrupt_turn)),
        (Operation::CreateTerminal, routes!(terminals::create::create_terminal)),
        (Operation::ListTerminals, routes!(terminals::list::list_terminals)),
        (Operation::GetTerminal, routes!(terminals::get::get_terminal)),
        (Operation::DeleteTerminal, routes!(terminals::delete::delete_terminal)),
        (Operation::CreateFleet, routes!(fleets::create::create_fleet)),
        (Operation::ListFleets, routes!(fleets::list::list_fleets)),
        (Operation::GetFleet, routes!(fleets::get::get_fleet)),
        (Operation::DeleteFleet, routes!(fleets::delete::delete_fleet)),
        (Operation::ListFleetMembers, routes!(fleets::members::list_fleet_members)),
        (Operation::GetFleetResults, routes!(fleets::results::get_fleet_results)),
        (Operation::StreamFleet, routes!(fleets::stream::stream_fleet)),
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
        (Operation::ListDeliveries, routes!(webhooks::list::list_deliveries)),
        (Operation::RetryDelivery, routes!(webhooks::retry::retry_delivery)),
        (Operation::GetWebhookSecret, routes!(webhooks::secret::get_webhook_secret)),
        (Operation::RotateWebhookSecret, routes!(webhooks::rotate::rotate_webhook_secret)),
        (Operation::CreateTrigger, routes!(triggers::create::create_trigger)),
        (Operation::ListTriggers, routes!(triggers::list::list_triggers)),
        (Operation::GetTrigger, routes!(triggers::get::get_trigger)),
        (Operation::UpdateTrigger, routes!(triggers::update::update_trigger)),
        (Operation::DeleteTrigger, routes!(triggers::delete::delete_trigger)),
        (Operation::GetTriggerRuns, routes!(triggers::runs::get_trigger_runs)),
        (Operation::FireTrigger, routes!(triggers::fire::fire_trigger)),
        (Operation::RotateTriggerSecret, routes!(triggers::rotate::rotate_trigger_secret)),
        (Operation::CallHook, routes!(hooks::call_hook)),
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
