//! `gantry call`: any method of a server that describes itself, and the descriptions.

mod codec;
mod describe;
mod errors;
pub(crate) mod invoke;
pub(crate) mod messages;
pub(crate) mod reflection;
pub(crate) mod target;

use std::{io::IsTerminal as _, time::Duration};

use prost_reflect::{DynamicMessage, MethodDescriptor};
use tonic::Status;

use self::{invoke::Invocation, messages::Source, reflection::Reflection, target::Target};
use crate::{
    Outcome,
    args::{Call, CallOutput},
    failure::{Exit, Failure, nearest},
    output,
};

/// An answer at most; above the 4 MiB servers start with, as this is a tool to look with.
const MESSAGE_MAX: usize = 64 << 20;

/// How long a unary call may take that was given no deadline.
pub(crate) const DEADLINE_UNARY: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: Call) -> Outcome {
    let tls = target::tls(args.ca.clone(), args.server_name.clone());
    let target = Target::find(&args.target, tls, &args.etcd).await?;
    let outcome = call(args, &target).await;
    target.close().await;
    outcome
}

async fn call(args: Call, target: &Target) -> Outcome {
    let (reflection, services) = Reflection::of(target.channel.clone()).await?;
    let Some(symbol) = &args.method else {
        return list(&reflection, &services, args.output).await;
    };
    let Some((service, name)) = split(symbol, &services) else {
        return describe(&reflection, &services, symbol, args.output).await;
    };
    let method = method(&reflection, &services, service, name).await?;
    let stream = method.is_client_streaming();
    let source = Source::read(args.request.as_deref(), &method.input(), stream).await?;
    let unary = !stream && !method.is_server_streaming();
    let invocation = Invocation {
        channel: target.channel.clone(),
        metadata: invoke::metadata(&args.headers)?,
        deadline: args.deadline.or(unary.then_some(DEADLINE_UNARY)),
        method,
    };
    let format = args.output.unwrap_or_else(|| default_output(&invocation));
    finish(
        invocation.run(source, |answer| show(&answer, format)).await,
        args.output,
    )
}

/// People get one answer indented; many answers, and programs, a line for each.
fn default_output(invocation: &Invocation) -> CallOutput {
    if invocation.method.is_server_streaming() || !std::io::stdout().is_terminal() {
        CallOutput::Json
    } else {
        CallOutput::Pretty
    }
}

fn show(message: &DynamicMessage, format: CallOutput) {
    let text = match format {
        CallOutput::Json => serde_json::to_string(message),
        CallOutput::Pretty => serde_json::to_string_pretty(message),
    };
    match text {
        Ok(text) => output::line(&text),
        // Some values have no JSON: an `Any` of a type the server does not describe.
        Err(error) => output::error(&format!("an answer that has no JSON: {error}")),
    }
}

fn finish(result: Result<Exit, invoke::Ended>, format: Option<CallOutput>) -> Outcome {
    match result {
        Ok(exit) => Ok(exit),
        Err(invoke::Ended::Status(status)) if format == Some(CallOutput::Json) => {
            output::note(&errors::to_json(&status).to_string());
            Ok(Exit::Failed)
        }
        Err(invoke::Ended::Status(status)) => Err(errors::failure(&status)),
        Err(invoke::Ended::Requests(failure)) => Err(failure),
    }
}

/// The failure of a call for people.
pub(crate) fn failure(status: &Status) -> Failure {
    errors::failure(status)
}

/// A method's service and name: `package.Service/Method`, or grpcurl's other spelling,
/// `package.Service.Method`. None if it is no method of `services`.
pub(crate) fn split<'a>(symbol: &'a str, services: &[String]) -> Option<(&'a str, &'a str)> {
    symbol.split_once('/').or_else(|| {
        let split = symbol.rsplit_once('.')?;
        services.iter().any(|name| name == split.0).then_some(split)
    })
}

/// The method `name` of `service`, as the server describes it.
pub(crate) async fn method(
    reflection: &Reflection,
    services: &[String],
    service: &str,
    name: &str,
) -> Result<MethodDescriptor, Failure> {
    if !services.iter().any(|known| known == service) {
        return Err(unknown_symbol(service, services));
    }
    let pool = reflection.pool(service).await?;
    let descriptor = pool
        .get_service_by_name(service)
        .ok_or_else(|| unknown_symbol(service, services))?;
    let method = descriptor.methods().find(|method| method.name() == name);
    method.ok_or_else(|| {
        let methods: Vec<_> = descriptor.methods().collect();
        let near = nearest(name, methods.iter().map(MethodDescriptor::name));
        Failure::usage(format!("{service} has no method \"{name}\"{near}"))
    })
}

fn unknown_symbol(symbol: &str, services: &[String]) -> Failure {
    let near = nearest(symbol, services.iter().map(String::as_str));
    Failure::usage(format!("the server has no \"{symbol}\"{near}"))
}

async fn list(reflection: &Reflection, services: &[String], format: Option<CallOutput>) -> Outcome {
    let mut values = Vec::new();
    for name in services {
        let pool = reflection.pool(name).await?;
        let Some(service) = pool.get_service_by_name(name) else {
            continue;
        };
        match format {
            Some(CallOutput::Json) => values.push(describe::service_json(&service)),
            _ => output::line(&describe::service(&service)),
        }
    }
    if format == Some(CallOutput::Json) {
        output::json(&values);
    }
    Ok(Exit::Fine)
}

async fn describe(
    reflection: &Reflection,
    services: &[String],
    symbol: &str,
    format: Option<CallOutput>,
) -> Outcome {
    let pool = reflection.pool(symbol).await.map_err(|failure| {
        let near = nearest(symbol, services.iter().map(String::as_str));
        Failure::new(failure.exit(), format!("{failure}{near}"))
    })?;
    if format == Some(CallOutput::Json)
        && let Some(service) = pool.get_service_by_name(symbol)
    {
        output::json(&describe::service_json(&service));
        return Ok(Exit::Fine);
    }
    let text = describe::symbol(&pool, symbol);
    let text = text.ok_or_else(|| unknown_symbol(symbol, services))?;
    output::line(&text);
    Ok(Exit::Fine)
}
