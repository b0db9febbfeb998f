//! The description of the control API (OpenAPI 3.1), from the code that serves it.

use utoipa::OpenApi;

use super::routes::{queue, session, submit};
use super::wire::WireError;

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
        session::status,
        session::watch_status,
        submit::submit,
        submit::submit_raw,
        queue::queue,
        queue::queue_row,
        queue::wait,
        queue::cancel,
        queue::hold,
        queue::release,
        queue::retry,
        queue::export,
        queue::trace,
        queue::retry_all,
        session::notify,
        session::flush,
        session::check,
        session::fsck,
        session::metrics,
        session::openapi,
    ),
    components(schemas(WireError))
)]
struct ControlApi;

/// The description.
pub(super) fn description() -> utoipa::openapi::OpenApi {
    ControlApi::openapi()
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
