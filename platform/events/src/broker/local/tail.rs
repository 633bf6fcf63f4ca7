//! Looking at what is published.

use gantry_api::broker::v1::TailResponse;
use tonic::Streaming;

use super::convert;
use crate::broker::{Sighting, Tail, Work};

/// The broker's answers; it is let go of with this.
#[derive(Debug)]
pub(super) struct Reading {
    answers: Streaming<TailResponse>,
}

impl Reading {
    pub(super) fn new(answers: Streaming<TailResponse>) -> Self {
        Self { answers }
    }
}

impl Tail for Reading {
    fn next(&mut self) -> Work<'_, Option<Sighting>> {
        Box::pin(async {
            loop {
                let shown = self.answers.message().await.ok()??;
                if let Some(sighting) = convert::sighting(shown) {
                    return Some(sighting);
                }
            }
        })
    }
}
