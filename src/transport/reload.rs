//! ValidateState: trying the servers out, and taking up a configuration that has changed (ST-7).

use std::sync::Arc;

use super::check::check_servers;
use super::events::Activity;
use super::logon::{Halves, LOGOFF_GRACE, Logon, refuse_unknown};
use super::occupation::Task;
use super::settings::TransportSettings;
use super::status::Connection;
use crate::mapi::{MapiCode, MapiError, MapiResult, SpoolerNotify, ValidateFlags};

impl Logon {
    /// The inside of ValidateState. With `CONFIG_CHANGED` the profile section is read again and
    /// both halves begin anew by what it says, in a critical section: what is on the wire gets its
    /// time to finish, what was accepted stays in the queue. Without it the servers of the section
    /// are tried out, where connections are allowed.
    ///
    /// What was begun goes on when the caller drops the future.
    ///
    /// # Errors
    /// `MAPI_E_BUSY` in a critical section and while another check runs; what is wrong with the
    /// servers; `MAPI_E_UNCONFIGURED` for a section that makes no sense, and
    /// `MAPI_E_INVALID_PARAMETER` for one with another name: then nothing changes.
    pub(super) async fn validate(self: Arc<Self>, flags: ValidateFlags) -> MapiResult<()> {
        refuse_unknown(ValidateFlags::unknown_bits(flags.bits()))?;
        let own = ValidateFlags::SUPPRESS_UI | ValidateFlags::CONFIG_CHANGED;
        if flags.intersects(!own) {
            return Err(MapiError::new(
                MapiCode::NO_SUPPORT,
                "headers first is not offered by this transport",
            ));
        }
        let changed = flags.contains(ValidateFlags::CONFIG_CHANGED);
        let task = if changed { Task::CriticalSection } else { Task::Check };
        let busy = self.occupation.begin(&self.hub, task)?;
        let runtime = self.runtime.clone();
        // On our own runtime, because the caller's may have none (see `spi`).
        let work = runtime.spawn(async move {
            let answer = match changed {
                true => self.take_up_configuration().await,
                false => self.try_servers().await,
            };
            drop(busy);
            if changed && answer.is_ok() {
                self.hub.row.notify(SpoolerNotify::CONFIG_CHANGE, None);
            }
            answer
        });
        work.await.unwrap_or_else(|error| {
            Err(MapiError::new(MapiCode::CALL_FAILED, format!("ValidateState: {error}")))
        })
    }

    async fn try_servers(&self) -> MapiResult<()> {
        if self.hub.row.situation().connection == Connection::Offline {
            return Ok(());
        }
        let checks = check_servers(&self.hub.support.profile_section()).await?;
        checks.into_iter().find_map(|check| check.offers.err()).map_or(Ok(()), Err)
    }

    async fn take_up_configuration(&self) -> MapiResult<()> {
        let settings = TransportSettings::from_section(&self.hub.support.profile_section())?;
        if settings.name != self.name() {
            // The queue and the cursors are kept under it.
            let words = format!("{} cannot change its name while it is logged on", self.name());
            return Err(MapiError::new(MapiCode::INVALID_PARAMETER, words));
        }
        let Halves { outbound, inbound } = self.halves();
        let outbound = async {
            if let Some(outbound) = outbound {
                outbound.stop(LOGOFF_GRACE).await;
            }
        };
        let inbound = async {
            if let Some(inbound) = inbound {
                inbound.stop(LOGOFF_GRACE).await;
            }
        };
        tokio::join!(outbound, inbound);
        let new = (self.make_halves)(&settings);
        self.hub.attach(&new);
        self.hub.row.update_identity(&settings.identity, |situation| {
            situation.outbound_activity = Activity::Idle;
            situation.inbound_activity = Activity::Idle;
            situation.outbound_trouble = None;
            situation.inbound_trouble = None;
            situation.notify = new.possible(situation.notify);
            self.set_halves(new);
            // A TransportNotify that came meanwhile counts: it has changed the situation.
            self.apply_all(situation);
        });
        // A logoff that came meanwhile has not seen the new halves.
        if self.alive().is_err() {
            self.stop_halves(std::time::Duration::ZERO).await;
        }
        Ok(())
    }
}
