//! gRPC on the side port: the admin service, and reflection to find it.

use std::{convert::Infallible, sync::Arc};

use gantry_api::admin::v1::{self, admin_service_server::AdminServiceServer};
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::{body::Body, codegen::BoxFuture, server::NamedService};
use tonic_reflection::pb::v1::server_reflection_server::ServerReflectionServer as V1;
use tower::Service;

use super::service::Admin;
use crate::{
    server::reflection::{Alpha, Malformed, Reflection},
    status::Refusal,
};

/// Largest request taken; the longest has a log filter in it.
const REQUEST_MAX: usize = 16 * 1_024;

type Answer = BoxFuture<Response<Body>, Infallible>;

/// A generated server with its type forgotten.
trait Handler: Send + Sync {
    fn call(&self, request: Request<Incoming>) -> Answer;
}

impl<S> Handler for S
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = Answer>
        + Clone
        + Send
        + Sync,
{
    fn call(&self, request: Request<Incoming>) -> Answer {
        Service::call(&mut self.clone(), request)
    }
}

/// The gRPC services of the side port, by name.
pub(crate) struct Grpc {
    services: Vec<(&'static str, Arc<dyn Handler>)>,
}

impl Grpc {
    /// The admin service `admin`, and reflection.
    ///
    /// # Errors
    ///
    /// If the descriptors that were compiled in cannot be read.
    pub(crate) fn new(admin: Admin) -> Result<Self, Malformed> {
        let names = [AdminServiceServer::<Admin>::NAME, V1::<Reflection>::NAME];
        let described = Reflection::new(names.map(str::to_owned), [v1::DESCRIPTORS])?;
        let admin = AdminServiceServer::new(admin).max_decoding_message_size(REQUEST_MAX);
        let mut grpc = Self {
            services: Vec::new(),
        };
        grpc.add(admin);
        let reflection = V1::new(described).max_decoding_message_size(REQUEST_MAX);
        grpc.add(reflection.clone());
        grpc.add(Alpha::of(reflection));
        Ok(grpc)
    }

    fn add<S: Handler + NamedService + 'static>(&mut self, service: S) {
        self.services.push((S::NAME, Arc::new(service)));
    }

    /// Answers one call.
    pub(super) async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let name = path.split('/').nth(1).unwrap_or_default();
        let service = self.services.iter().find(|(known, _)| *known == name);
        match service {
            Some((_, service)) => {
                let Ok(answer) = service.call(request).await;
                answer
            }
            None => Refusal::Unimplemented
                .status("the side port serves no such service")
                .into_http(),
        }
    }
}
