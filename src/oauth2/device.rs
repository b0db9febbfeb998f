//! Signing in on another device (RFC 8628): a code to type there, and asking until it was.

use std::time::Duration;

use super::client::DeviceGrant;
use super::{Answer, Client, Grant};
use crate::clock::Clock;
use crate::spi::{SecretError, SecretErrorKind};

/// What the person is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevicePrompt {
    /// Where to go.
    pub(crate) url: String,
    /// What to type there.
    pub(crate) code: String,
    /// How long it is good for.
    pub(crate) lifetime: Duration,
}

/// Shows a code by `show` and waits until the person has used it. Dropping the future gives up;
/// the code then runs out by itself.
///
/// # Errors
/// When the person or the server says no, the code runs out, or the server is out of reach at the
/// beginning; later that is waited out.
pub(crate) async fn sign_in(
    client: &Client,
    clock: &dyn Clock,
    show: impl FnOnce(DevicePrompt) + Send,
) -> Result<Grant, SecretError> {
    let DeviceGrant { device_code, user_code, verification_uri, expires_in, interval } =
        client.begin_device().await?;
    let lifetime = Duration::from_secs(expires_in);
    let end = clock.now().saturating_add(lifetime);
    show(DevicePrompt { url: verification_uri, code: user_code, lifetime });
    let mut interval = Duration::from_secs(interval);
    loop {
        let next = clock.now().saturating_add(interval);
        if next >= end {
            return Err(SecretError::new("nobody has used the code in time; begin again"));
        }
        clock.sleep_until(next).await;
        match client.poll(&device_code).await {
            Ok(Answer::Granted(grant)) => return Ok(grant),
            Ok(Answer::Pending) => {}
            // RFC 8628 section 3.5.
            Ok(Answer::SlowDown) => interval += Duration::from_secs(5),
            Ok(Answer::Refused(refusal)) => {
                return Err(SecretError::new(match refusal.code.as_str() {
                    "access_denied" => "the request was denied".to_owned(),
                    "expired_token" => "nobody has used the code in time; begin again".to_owned(),
                    _ => format!("the server refuses ({})", refusal.words),
                }));
            }
            Ok(Answer::Later(_)) => interval = (interval * 2).min(Duration::from_secs(60)),
            Err(error) if error.kind == SecretErrorKind::OutOfReach => {
                interval = (interval * 2).min(Duration::from_secs(60));
            }
            Err(error) => return Err(error),
        }
    }
}
