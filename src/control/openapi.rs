//! The description of the control API (OpenAPI 3.1), from the code that serves it.

use utoipa::OpenApi;

use super::routes;

/// The paths and the types they name.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "postrider control API",
        description = "HTTP over the control socket of a daemon. Errors are those of the contract: \
                       a code, its name and words."
    ),
    servers((url = "http://postrider", description = "over <state>/PROFILE/control.sock")),
    paths(
        routes::status,
        routes::watch_status,
        routes::submit,
        routes::submit_raw,
        routes::queue,
        routes::queue_row,
        routes::wait,
        routes::cancel,
        routes::hold,
        routes::release,
        routes::retry,
        routes::export,
        routes::trace,
        routes::retry_all,
        routes::notify,
        routes::flush,
        routes::check,
        routes::fsck,
        routes::metrics,
        routes::openapi,
    )
)]
struct ControlApi;

/// The description.
pub(super) fn description() -> utoipa::openapi::OpenApi {
    ControlApi::openapi()
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
