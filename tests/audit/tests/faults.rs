//! Good books, and each kind of mistake planted in them.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use shop_audit::{
    Books, Charge, ChargeState, Fault, Judged, Kind, Money, Order, Payment, PaymentState,
    Reservation, ReservationState, Shelf, Shelves, State,
};

const SKU: &str = "TEA";

/// A mistake.
type Spoil = fn(&mut Books);

fn euros(minor_units: i64) -> Money {
    Money {
        minor_units,
        currency_code: "EUR".to_owned(),
    }
}

fn order(state: State) -> Order {
    Order {
        state,
        unsettled: false,
        version: 4,
        lines: BTreeMap::from([(SKU.to_owned(), 2)]),
        total: Some(euros(1_780)),
        judged: Judged::AtRest,
    }
}

fn charge(key: &str, reference: &str, state: ChargeState) -> Charge {
    Charge {
        key: key.to_owned(),
        reference: reference.to_owned(),
        amount: euros(1_780),
        state,
    }
}

fn payment(state: PaymentState) -> Payment {
    Payment {
        amount: Some(euros(1_780)),
        state,
    }
}

fn reservation(state: ReservationState) -> Reservation {
    Reservation {
        state,
        lines: BTreeMap::from([(SKU.to_owned(), 2)]),
    }
}

fn named<T>(rows: [(&str, T); 3]) -> BTreeMap<String, T> {
    let rows = rows.into_iter();
    rows.map(|(id, row)| (id.to_owned(), row)).collect()
}

/// An order that is sold, one that is cancelled, and one on its way.
fn good() -> Books {
    let moving = Order {
        unsettled: true,
        judged: Judged::Later,
        ..order(State::Reserved)
    };
    Books {
        orders: named([
            ("sold", order(State::Confirmed)),
            ("over", order(State::Cancelled)),
            ("moving", moving),
        ]),
        payments: named([
            ("sold", payment(PaymentState::Charged)),
            ("over", payment(PaymentState::Refunded)),
            ("moving", payment(PaymentState::Charged)),
        ]),
        charges: vec![
            charge("sold", "sold", ChargeState::Charged),
            charge("over", "over", ChargeState::Refunded),
            charge("moving", "moving", ChargeState::Charged),
        ],
        reservations: named([
            ("sold", reservation(ReservationState::Confirmed)),
            ("over", reservation(ReservationState::Released)),
            ("moving", reservation(ReservationState::Held)),
        ]),
        shelves: shelves(8, 2),
    }
}

fn shelves(on_hand: i64, sold: i64) -> Shelves {
    let shelf = Shelf {
        on_hand,
        reserved: 2,
        held: 2,
        sold,
    };
    BTreeMap::from([(SKU.to_owned(), shelf)])
}

fn spoilt(spoil: Spoil) -> Vec<Fault> {
    let mut books = good();
    spoil(&mut books);
    books.faults(Some(&shelves(10, 0)))
}

/// The order or product of each, and what kind of fault it has.
fn seen(faults: &[Fault]) -> Vec<(&str, Kind)> {
    faults.iter().map(|it| (&*it.subject, it.kind)).collect()
}

/// Has the bank write a charge of 17.80 down.
fn take(books: &mut Books, key: &str, reference: &str, state: ChargeState) {
    books.charges.push(charge(key, reference, state));
}

/// Has payments write down where the money for `id` stands.
fn pay(books: &mut Books, id: &str, state: PaymentState) {
    books.payments.insert(id.to_owned(), payment(state));
}

/// Has the catalog write down what it holds for `id`.
fn keep(books: &mut Books, id: &str, units: i64, state: ReservationState) {
    let lines = BTreeMap::from([(SKU.to_owned(), units)]);
    let kept = Reservation { state, lines };
    books.reservations.insert(id.to_owned(), kept);
}

/// The one shelf.
fn shelf(books: &mut Books) -> &mut Shelf {
    books.shelves.get_mut(SKU).unwrap()
}

/// Goal: the books are found good where they are, and money is found wrong where it is.
/// Method: good ones, then each kind of mistake planted; the fault, and no other.
#[test]
fn planted_faults_of_money_are_found() {
    assert_eq!(Vec::<Fault>::new(), spoilt(|_| {}));
    check(&[
        (
            |it| take(it, "again", "sold", ChargeState::Charged),
            ("sold", Kind::ChargedTwice),
            "1780 EUR under the key sold and 1780 EUR under the key again",
        ),
        (
            |it| take(it, "sold", "sold", ChargeState::Refunded),
            ("sold", Kind::KeyReused),
            "the key sold",
        ),
        (
            |it| it.charges[0].state = ChargeState::Refunded,
            ("sold", Kind::NotCharged),
            "took nothing",
        ),
        (
            |it| it.charges[0].amount = euros(1),
            ("sold", Kind::WrongAmount),
            "1780 EUR due, and the bank took 1 EUR",
        ),
        (
            |it| it.charges[1].state = ChargeState::Charged,
            ("over", Kind::NotRefunded),
            "keeps 1780 EUR under the key over",
        ),
        (
            |it| take(it, "none", "none", ChargeState::Charged),
            ("none", Kind::UnknownOrder),
            "took 1780 EUR",
        ),
    ]);
}

/// Goal: the same for what payments know.
/// Method: as before.
#[test]
fn planted_faults_of_payments_are_found() {
    check(&[
        (
            |it| drop(it.payments.remove("sold")),
            ("sold", Kind::Payment),
            "is: none",
        ),
        (
            |it| pay(it, "sold", PaymentState::Pending),
            ("sold", Kind::Payment),
            "is: pending, 1780 EUR",
        ),
        (
            |it| pay(it, "over", PaymentState::Refunding),
            ("over", Kind::Payment),
            "is: refunding, 1780 EUR",
        ),
        (
            |it| pay(it, "none", PaymentState::Pending),
            ("none", Kind::UnknownOrder),
            "pending",
        ),
    ]);
}

/// Goal: the same for stock, and for orders that do not come to rest.
/// Method: as before.
#[test]
fn planted_faults_of_stock_are_found() {
    check(&[
        (
            |it| it.orders.get_mut("moving").unwrap().judged = Judged::Overdue,
            ("moving", Kind::Unfinished),
            "it is reserved",
        ),
        (
            |it| drop(it.reservations.remove("sold")),
            ("sold", Kind::Reservation),
            "the catalog has nothing",
        ),
        (
            |it| keep(it, "sold", 3, ReservationState::Confirmed),
            ("sold", Kind::Reservation),
            "confirmed",
        ),
        (
            |it| keep(it, "over", 2, ReservationState::Held),
            ("over", Kind::Reservation),
            "it is cancelled",
        ),
        (
            |it| keep(it, "none", 2, ReservationState::Held),
            ("none", Kind::UnknownOrder),
            "the catalog keeps",
        ),
        (
            |it| shelf(it).reserved = 5,
            (SKU, Kind::Stock),
            "5 units are reserved, reservations hold 2",
        ),
        (
            |it| shelf(it).on_hand = 5,
            (SKU, Kind::Stock),
            "of 10 units 2 were sold, 5 are left: 3 missing",
        ),
        (
            |it| it.shelves.clear(),
            (SKU, Kind::Stock),
            "there is no shelf",
        ),
    ]);
}

#[track_caller]
fn check(cases: &[(Spoil, (&str, Kind), &str)]) {
    for (spoil, fault, words) in cases {
        let faults = spoilt(*spoil);
        assert_eq!(vec![*fault], seen(&faults), "{faults:#?}");
        assert!(faults[0].found.contains(words), "{words}: {faults:?}");
    }
}

/// Goal: what is free is not charged, and nobody misses that.
/// Method: the order that is sold, for nothing; without a payment, then with the money taken.
#[test]
fn free_orders_cost_nothing() {
    let free = |it: &mut Books| {
        it.orders.get_mut("sold").unwrap().total = Some(euros(0));
        it.payments.remove("sold");
    };
    let mut books = good();
    free(&mut books);
    assert_eq!(vec![("sold", Kind::NotRefunded)], seen(&books.faults(None)));
    books.charges.remove(0);
    assert_eq!(Vec::<Fault>::new(), books.faults(None));
}
