//! A service as a stranger writes it: a contract, a handler, and nothing else.

use std::process::ExitCode;

use gantry::app::{self, App, BoxError};
use tonic::{Request, Response, Status};

mod contracts {
    gantry::include_contracts!();
}
use contracts::hello::v1::{SayHelloRequest, SayHelloResponse, hello_service_server::*};

struct Hello;

#[tonic::async_trait]
impl HelloService for Hello {
    async fn say_hello(
        &self,
        request: Request<SayHelloRequest>,
    ) -> Result<Response<SayHelloResponse>, Status> {
        let greeting = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(SayHelloResponse { greeting }))
    }
}

async fn start(app: &mut App<()>) -> Result<(), BoxError> {
    app.serve(HelloServiceServer::new(Hello));
    Ok(())
}

fn main() -> ExitCode {
    app::run(app::identity!(), start)
}
