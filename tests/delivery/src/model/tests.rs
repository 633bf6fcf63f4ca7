use super::*;

/// Goal: whoever plays the run of a seed again sees what was wrong in it.
/// Method: seeds with all that can happen in them, each played twice; the histories are the same but for
/// the identifiers of events, and nothing is wrong.
#[test]
fn a_seed_is_the_same_run_whenever_it_is_played() {
    let stage = Stage::make().unwrap();
    for seed in 1..=20 {
        let counts = Counts::default();
        let [one, other] = [(); 2].map(|()| stage.play(seed, &counts).unwrap());
        assert_eq!(None, difference(&one, &other), "seed {seed}");
        let faults = one.evidence.faults();
        assert!(faults.is_empty(), "seed {seed}: {faults:#?}");
    }
}
