use gantry::app::{self, App, BoxError};
use gantry_events::{Events, Failure, Outbox, Received, Settings};
use gantry_store::{Database, Migration, Statement, Transaction};
use tonic::{Request, Response, Result};

mod contracts {
    gantry::include_contracts!();
}
use contracts::tally::v1::{GreetRequest, GreetResponse, Greeted, tally_service_server::*};

const ADD: Statement = Statement::new("tally.add", "INSERT INTO greetings (name) VALUES ($1)");
const ALL: Statement = Statement::new("tally.all", "SELECT COUNT(*) AS total FROM greetings");

struct Tally(Database, Outbox);

#[tonic::async_trait]
impl TallyService for Tally {
    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetResponse>> {
        let GreetRequest { name } = request.into_inner();
        let event = Greeted { name };
        let mut transaction = self.0.begin("tally.greet").await?;
        self.1.add(&mut transaction, &event.name, &event).await?;
        transaction.commit().await?;
        let total = self.0.statement(&ALL).fetch_one().await?;
        let counted = total.integer("total")?;
        Ok(Response::new(GreetResponse { counted }))
    }
}

async fn count(greeted: &Received<Greeted>, transaction: &mut Transaction) -> Result<(), Failure> {
    let add = transaction.statement(&ADD).bind(&greeted.name);
    add.execute().await?;
    Ok(())
}

async fn start(app: &mut App<Settings>) -> Result<(), BoxError> {
    let table = Migration::new(1, "tally", "CREATE TABLE greetings (name TEXT NOT NULL)");
    let (database, events) = Events::open(app, &[table]).await?;
    events.consumer("counter").on(count).start();
    app.serve(TallyServiceServer::new(Tally(database, events.outbox())));
    Ok(())
}

fn main() -> std::process::ExitCode {
    app::run(app::identity!(), start)
}
