//! The description of the API (OpenAPI 3.1), made from the handlers themselves.

use super::{
    answers, change, console, events, explain, flight, inventory, members, policy, power, problem, providers,
    read, spares,
};
use axum::Json;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Failover supervisor",
        description = "Every request needs a client certificate of the cluster's CA, a bearer token, or X-Auth-Token with a token of a described cloud's Keystone (a tenant: its own instances and failovers only). Reading needs the role reader, everything else operator (of a project: member). What only the leader answers is redirected to it with 307."
    ),
    paths(
        read::healthz,
        read::metrics,
        read::status,
        read::nodes,
        read::node,
        read::instances,
        read::instance,
        spares::list,
        providers::list,
        inventory::compare,
        read::failovers,
        read::failover,
        read::explanation,
        policy::list,
        policy::get,
        policy::history,
        policy::effective,
        policy::plan,
        policy::lint,
        read::coverage,
        policy::set,
        policy::delete,
        change::cordon,
        change::maintenance,
        change::drain,
        change::fence,
        change::confirm_off,
        change::release,
        console::read,
        console::type_in,
        power::look,
        power::switch,
        power::interrupt,
        change::evacuate,
        change::backup,
        change::delete_node,
        change::delete_instance,
        change::delete_provider,
        change::approve,
        change::cancel,
        change::arm,
        change::disarm,
        change::apply,
        members::list,
        members::add,
        members::promote,
        members::remove,
        members::transfer,
        events::list,
        events::follow,
        flight::record
    ),
    components(schemas(
        answers::Status,
        answers::NodeLine,
        answers::InstanceLine,
        answers::FailoverLine,
        explain::Explanation,
        problem::Problem
    ))
)]
struct Description;

/// This description.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// This description, as an answer.
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(description())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described() {
        let described = Description::openapi();
        let router = include_str!("mod.rs");
        let routes: Vec<&str> = router
            .split(".route(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .filter(|route| *route != "/openapi.json")
            .collect();
        assert!(routes.len() > 25, "{routes:?}");
        for route in routes {
            let route = route.replace("{*target}", "{target}");
            assert!(described.paths.paths.contains_key(&route), "{route} is not described");
        }
    }
}
