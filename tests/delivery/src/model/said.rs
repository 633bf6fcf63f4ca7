//! What the platform says in its log, onto the tape of the run at hand.

use std::{cell::RefCell, sync::Arc};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use super::{
    gate::Counts,
    tape::{Tape, What},
};

/// What is counted of what it says, and as what.
const COUNTED: [(&str, &str); 4] = [
    ("another instance has the partition", "stale claims refused"),
    (
        "an instance is silent; others take over",
        "instances taken over from",
    ),
    (
        "not heard of for too long: others publish what was claimed here",
        "relays passed by",
    ),
    ("an event waits for the database", "waits for the database"),
];

thread_local! {
    static RUN: RefCell<Option<(Arc<Tape>, Counts)>> = const { RefCell::new(None) };
}

/// Has what is said on this thread go onto the tape, and be counted.
pub(super) fn listen(tape: &Arc<Tape>, counts: &Counts) {
    RUN.set(Some((Arc::clone(tape), counts.clone())));
}

/// Takes in what is said.
#[derive(Debug)]
pub(super) struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        RUN.with_borrow(|run| {
            let Some((tape, counts)) = run else { return };
            let counted = COUNTED.iter().find(|(message, _)| said.message == *message);
            if let Some((_, what)) = counted {
                counts.one(what);
            }
            let Said { message, fields } = said;
            tape.add(&"".into(), What::Said(format!("{message}{fields}")));
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.extend([format!(" {field}={value:?}")]);
        }
    }
}
