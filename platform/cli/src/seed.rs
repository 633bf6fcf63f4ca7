//! Fills services once they serve: requests from files, sent to methods that do not mind getting
//! them again at the next start.

use crate::{
    call::{
        self,
        invoke::{Ended, Invocation},
        messages,
        reflection::Reflection,
        target::Target,
    },
    failure::Failure,
    project::{Project, Seed},
};

/// A method that takes a stream gets all of it within this.
const SEED_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Sends one seed to its service at `address`; says what was done.
pub(crate) async fn plant(
    project: &Project,
    seed: &Seed,
    address: &str,
) -> Result<String, Failure> {
    let target = Target::at(address, None)?;
    let planted = send(project, seed, &target).await;
    target.close().await;
    planted
}

async fn send(project: &Project, seed: &Seed, target: &Target) -> Result<String, Failure> {
    let (service, name) = seed.method.split_once('/').ok_or_else(|| {
        let method = &seed.method;
        Failure::usage(format!(
            "[[seeds]] method {method}: write it as package.Service/Method"
        ))
    })?;
    let (reflection, services) = Reflection::of(target.channel.clone()).await?;
    let method = call::method(&reflection, &services, service, name).await?;
    let file = project.root.join(&seed.file);
    let requests = messages::of_file(&file, &method.input())?;
    let count = requests.len();
    let invocation = Invocation {
        channel: target.channel.clone(),
        metadata: tonic::metadata::MetadataMap::new(),
        deadline: Some(SEED_MAX),
        method,
    };
    let batches = if invocation.method.is_client_streaming() {
        vec![requests]
    } else {
        requests.into_iter().map(|request| vec![request]).collect()
    };
    for batch in batches {
        let sent = invocation.collect(batch).await;
        sent.map_err(|ended| match ended {
            Ended::Status(status) => call::failure(&status),
            Ended::Requests(failure) => failure,
        })?;
    }
    Ok(format!(
        "seeded {} with {count} from {}",
        seed.service,
        seed.file.display()
    ))
}
