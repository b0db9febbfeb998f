//! The face of the library for who wants to send and fetch through a profile.

mod service;

pub use service::{
    CheckReport, Direction, FlushRequest, FlushSummary, InboundMode, InboundState, NotifyRequest,
    QueueCountsView, QueueRow, QueueRowState, RawEnvelope, RecipientRow, RecipientRowState,
    Service, StatusReport, StatusRowView, Submission,
};
