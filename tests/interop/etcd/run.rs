//! Runs every case on a server, and compares or records what it answers.

use std::path::Path;

use gantry_harness::tools;

use super::{
    command::Session,
    script::{Case, Older, Script, Step},
    wire::Wire,
};

/// Instead of an answer, where asking ends the server.
const NOT_ASKED: &str = "not asked";

/// What a server is expected to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// As etcd 3.6 does.
    Current,
    /// As etcd 3.4 does.
    Older,
}

impl Answers {
    fn of(self, step: &Step) -> &[String] {
        match (self, &step.older) {
            (Self::Older, Some(older)) => &older.answer,
            _ => &step.answer,
        }
    }

    /// Makes `answer` the expected one.
    fn record(self, step: &mut Step, answer: Vec<String>) {
        match self {
            Self::Current => step.answer = answer,
            Self::Older if answer == step.answer => step.older = None,
            Self::Older => {
                let because = step.older.take().map(|older| older.because);
                step.older = Some(Older {
                    because: because.unwrap_or_else(|| "unnamed".to_owned()),
                    answer,
                });
            }
        }
    }
}

/// Runs every case in `folder` on the server at `url`.
///
/// # Panics
///
/// If anything is answered otherwise; all of it is shown.
pub(super) async fn check(folder: &Path, url: &str, answers: Answers) {
    let wire = Wire::connect(url).await;
    let recorded = tools::setting("TESTS_RECORD").is_some();
    let mut surprises = Vec::new();
    for mut script in Script::all(folder) {
        let path = script.path.display().to_string();
        for case in &mut script.cases {
            let given = run(&wire, case, answers).await;
            if recorded {
                for (step, answer) in case.steps.iter_mut().zip(given) {
                    answers.record(step, answer);
                }
            } else {
                surprises.extend(compare(case, &given, answers, &path));
            }
        }
        if recorded {
            script.write();
        }
    }
    let count = surprises.len();
    assert!(count == 0, "{count} surprises\n{}", surprises.join("\n"));
}

async fn run(wire: &Wire, case: &Case, answers: Answers) -> Vec<Vec<String>> {
    let mut session = Session::begin(wire).await;
    let mut given = Vec::new();
    for step in &case.steps {
        if answers.of(step).first().is_some_and(|it| it == NOT_ASKED) {
            given.push(vec![NOT_ASKED.to_owned()]);
            continue;
        }
        given.push(folded(&session.run(&step.request).await));
    }
    given
}

/// Lines that are the same as one.
fn folded(lines: &[String]) -> Vec<String> {
    let same = lines.chunk_by(|one, other| one == other);
    let folded = same.map(|lines| match lines {
        [one] => one.clone(),
        several => format!("{} *{}", several[0], several.len()),
    });
    folded.collect()
}

fn compare(case: &Case, given: &[Vec<String>], answers: Answers, path: &str) -> Vec<String> {
    let pairs = case.steps.iter().zip(given);
    let wrong = pairs.filter(|(step, answer)| answers.of(step) != answer.as_slice());
    let told = wrong.map(|(step, answer)| {
        format!(
            "{path}:{}: {}: {}\n  expected\n    {}\n  got\n    {}",
            step.line,
            case.name,
            step.request.join("\n"),
            answers.of(step).join("\n    "),
            answer.join("\n    "),
        )
    });
    told.collect()
}
