//! The local broker by tonic's own channel.

use gantry_api::broker::v1::{
    Ack, ConsumeRequest, ConsumeResponse, PublishOutcome, PublishRequest, PublishResponse, Settle,
    Subscribe, broker_service_client::BrokerServiceClient, consume_request::Request,
    consume_response::Event, settle::How,
};
use gantry_bench::events::{Failed, GROUP, PREFETCH, WINDOW};
use gantry_events::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{Client, Queue, not_taken};

pub(crate) struct Grpc {
    client: BrokerServiceClient<Channel>,
    sender: mpsc::Sender<PublishRequest>,
    answers: Streaming<PublishResponse>,
    sent: u64,
    pending: usize,
}

pub(crate) struct Handed {
    requests: mpsc::Sender<ConsumeRequest>,
    answers: Streaming<ConsumeResponse>,
}

impl Client for Grpc {
    type Ready = PublishRequest;
    type Queue = Handed;

    async fn connect(place: &str) -> Result<Self, Failed> {
        let channel = Channel::from_shared(format!("http://{place}"))?;
        let mut client = BrokerServiceClient::new(channel.connect().await?);
        let (sender, requests) = mpsc::channel(WINDOW);
        let answers = client.publish(ReceiverStream::new(requests)).await?;
        Ok(Self {
            client,
            sender,
            answers: answers.into_inner(),
            sent: 0,
            pending: 0,
        })
    }

    fn ready(message: Message) -> PublishRequest {
        PublishRequest {
            tag: 0,
            message: Some(gantry_api::broker::v1::Message {
                topic: message.topic,
                key: message.key,
                headers: message.headers.into_iter().collect(),
                body: message.body.into(),
            }),
        }
    }

    async fn publish(&mut self, mut ready: PublishRequest, window: usize) -> Result<(), Failed> {
        self.sent += 1;
        ready.tag = self.sent;
        self.sender.send(ready).await?;
        self.pending += 1;
        while self.pending >= window {
            self.one().await?;
        }
        Ok(())
    }

    async fn confirmed(&mut self) -> Result<(), Failed> {
        while self.pending > 0 {
            self.one().await?;
        }
        Ok(())
    }

    async fn queue(&mut self, partition: u16) -> Result<Handed, Failed> {
        let (requests, asked) = mpsc::channel(usize::from(PREFETCH) + 1);
        let subscribe = Subscribe {
            group: GROUP.to_owned(),
            partition: u32::from(partition),
            prefetch: u32::from(PREFETCH),
        };
        let request = Some(Request::Subscribe(subscribe));
        requests.send(ConsumeRequest { request }).await?;
        let answers = self.client.consume(ReceiverStream::new(asked)).await?;
        Ok(Handed {
            requests,
            answers: answers.into_inner(),
        })
    }
}

impl Grpc {
    async fn one(&mut self) -> Result<(), Failed> {
        let answer = self.answers.message().await?;
        let answer = answer.ok_or("the broker has ended the stream")?;
        if answer.outcome() != PublishOutcome::Confirmed {
            return Err(not_taken(answer));
        }
        self.pending -= 1;
        Ok(())
    }
}

impl Queue for Handed {
    async fn next(&mut self) -> Result<(u64, Vec<u8>), Failed> {
        loop {
            let answer = self.answers.message().await?;
            let answer = answer.ok_or("the broker has ended the stream")?;
            if let Some(Event::Delivered(delivered)) = answer.event {
                let message = delivered.message.unwrap_or_default();
                return Ok((delivered.tag, message.body));
            }
        }
    }

    async fn ack(&mut self, tag: u64) -> Result<(), Failed> {
        let how = Some(How::Ack(Ack {}));
        let request = Some(Request::Settle(Settle { tag, how }));
        self.requests.send(ConsumeRequest { request }).await?;
        Ok(())
    }
}
