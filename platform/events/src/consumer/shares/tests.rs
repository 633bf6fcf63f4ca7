use super::*;

fn rows(owners: &[&str]) -> Vec<(u16, String, i64)> {
    let rows = (0..).zip(owners);
    rows.map(|(part, owner)| (part, (*owner).to_owned(), 1))
        .collect()
}

fn alive(members: &[&str]) -> BTreeMap<String, Member> {
    let member = |instance: &&str| {
        let member = Member {
            beat: 1,
            shares: true,
            topics: "A".to_owned(),
        };
        ((*instance).to_owned(), member)
    };
    members.iter().map(member).collect()
}

/// Goal: however many instances there are, their shares differ by one at most and add up.
/// Method: every number of instances against every number of partitions, up to twenty.
#[test]
fn shares_are_fair_and_add_up() {
    let names: Vec<_> = (0..20).map(|at| format!("{at:02}")).collect();
    for members in 1..=20 {
        let members: Vec<_> = names[..members].iter().map(String::as_str).collect();
        for partitions in 1..=20 {
            let rows = rows(&vec![""; partitions]);
            let shares = members
                .iter()
                .map(|it| view(&alive(&members), it, rows.clone()).share);
            let shares: Vec<_> = shares.collect();
            assert_eq!(partitions, shares.iter().sum::<usize>(), "{shares:?}");
            let (least, most) = (shares.iter().min(), shares.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{shares:?}");
        }
    }
}

/// Goal: what is nobody's or a dead instance's is to be had, and what another one has is not.
/// Method: one view of each.
#[test]
fn what_is_to_be_had_is_nobodys() {
    let view = view(
        &alive(&["me", "you"]),
        "me",
        rows(&["me", "you", "", "gone"]),
    );
    assert_eq!(2, view.share);
    assert_eq!(BTreeMap::from([(0, 1)]), view.own);
    let free: Vec<_> = view.free.iter().map(|(part, ..)| *part).collect();
    assert_eq!(vec![2, 3], free);
}

/// Goal: an instance that is not listed, as one that was taken for dead, has no share.
/// Method: a view without it.
#[test]
fn whoever_is_not_listed_has_no_share() {
    let view = view(&alive(&["you"]), "me", rows(&["me", "you"]));
    assert_eq!(
        (0, 0),
        (
            view.share,
            view.free.iter().filter(|it| it.1 == "you").count()
        )
    );
}

/// Goal: an instance that takes no share leaves what it would have to the others, and keeps what it still
/// has; what it handles counts.
/// Method: one of two takes none, and has one partition.
#[test]
fn who_takes_no_share_keeps_what_it_has() {
    let mut members = alive(&["me", "you"]);
    let you = members.get_mut("you").unwrap();
    (you.shares, you.topics) = (false, "A\nB".to_owned());
    let view = view(&members, "me", rows(&["me", "you", "", ""]));
    assert_eq!(4, view.share);
    let free: Vec<_> = view.free.iter().map(|(part, ..)| *part).collect();
    assert_eq!(vec![2, 3], free);
    let topics = BTreeSet::from(["A".to_owned(), "B".to_owned()]);
    assert_eq!((true, topics), (view.is_first, view.topics));
}
