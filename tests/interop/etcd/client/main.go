// Does with Go's own client what services do with etcd: watch, transact, elect and lock.
//
//	client URL
//
// Ends with an error at the first surprise.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{os.Args[1]},
		DialTimeout: 5 * time.Second,
	})
	must(err)
	defer client.Close()
	for _, step := range []struct {
		name string
		run  func(context.Context, *clientv3.Client) error
	}{
		{"watch", watch},
		{"transaction", transaction},
		{"lease", lease},
		{"mutex", mutex},
		{"election", election},
		{"stm", counter},
	} {
		if err := step.run(ctx, client); err != nil {
			log.Fatalf("%s: %v", step.name, err)
		}
		fmt.Println(step.name)
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Reads history and what follows, with what was there before.
func watch(ctx context.Context, client *clientv3.Client) error {
	first, err := client.Put(ctx, "w/a", "1")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	responses := client.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithPrevKV(),
		clientv3.WithRev(first.Header.Revision))
	if _, err = client.Put(ctx, "w/a", "2"); err != nil {
		return err
	}
	if _, err = client.Delete(ctx, "w/a"); err != nil {
		return err
	}
	var told string
	for response := range responses {
		if err := response.Err(); err != nil {
			return err
		}
		for _, event := range response.Events {
			told += fmt.Sprintf("%v %s", event.Type, event.Kv.Value)
			if event.PrevKv != nil {
				told += fmt.Sprintf(" before %s", event.PrevKv.Value)
			}
			told += "; "
		}
		if len(told) >= len(expected) {
			break
		}
	}
	if told != expected {
		return fmt.Errorf("told %q", told)
	}
	if err := client.RequestProgress(ctx); err != nil {
		return err
	}
	if response := <-responses; !response.IsProgressNotify() {
		return fmt.Errorf("no progress: %v", response)
	}
	return nil
}

const expected = "PUT 1; PUT 2 before 1; DELETE  before 2; "

// Creates a key once.
func transaction(ctx context.Context, client *clientv3.Client) error {
	for _, want := range []bool{true, false} {
		response, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision("t"), "=", 0)).
			Then(clientv3.OpPut("t", "1")).
			Else(clientv3.OpGet("t")).
			Commit()
		if err != nil {
			return err
		}
		if response.Succeeded != want {
			return fmt.Errorf("succeeded: %v", response.Succeeded)
		}
	}
	return nil
}

// Keeps a lease alive longer than it lives, then takes its key away with it.
func lease(ctx context.Context, client *clientv3.Client) error {
	granted, err := client.Grant(ctx, 2)
	if err != nil {
		return err
	}
	if _, err = client.Put(ctx, "l", "1", clientv3.WithLease(granted.ID)); err != nil {
		return err
	}
	alive, err := client.KeepAlive(ctx, granted.ID)
	if err != nil {
		return err
	}
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		if answer := <-alive; answer == nil || answer.TTL != 2 {
			return fmt.Errorf("kept alive: %v", answer)
		}
	}
	if _, err = client.Revoke(ctx, granted.ID); err != nil {
		return err
	}
	found, err := client.Get(ctx, "l")
	if err == nil && found.Count != 0 {
		return fmt.Errorf("the key outlived its lease")
	}
	return err
}

// Two sessions want one lock; the second has it once the first ends.
func mutex(ctx context.Context, client *clientv3.Client) error {
	one, err := concurrency.NewSession(client, concurrency.WithTTL(5))
	if err != nil {
		return err
	}
	other, err := concurrency.NewSession(client, concurrency.WithTTL(5))
	if err != nil {
		return err
	}
	defer other.Close()
	if err := concurrency.NewMutex(one, "/lock").Lock(ctx); err != nil {
		return err
	}
	waiting := concurrency.NewMutex(other, "/lock")
	if err := waiting.TryLock(ctx); err != concurrency.ErrLocked {
		return fmt.Errorf("locked twice: %v", err)
	}
	locked := make(chan error, 1)
	go func() { locked <- waiting.Lock(ctx) }()
	// Ending a session revokes its lease, and with it the lock.
	if err := one.Close(); err != nil {
		return err
	}
	if err := <-locked; err != nil {
		return err
	}
	return waiting.Unlock(ctx)
}

// Leads, says so, and resigns.
func election(ctx context.Context, client *clientv3.Client) error {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(5))
	if err != nil {
		return err
	}
	defer session.Close()
	election := concurrency.NewElection(session, "/leader")
	if err := election.Campaign(ctx, "me"); err != nil {
		return err
	}
	leader, err := election.Leader(ctx)
	if err != nil {
		return err
	}
	if string(leader.Kvs[0].Value) != "me" {
		return fmt.Errorf("leader: %v", leader.Kvs)
	}
	return election.Resign(ctx)
}

// Counts from several sides at once, in software transactional memory.
func counter(ctx context.Context, client *clientv3.Client) error {
	const sides = 8
	counted := make(chan error, sides)
	for range sides {
		go func() {
			_, err := concurrency.NewSTM(client, func(memory concurrency.STM) error {
				memory.Put("count", memory.Get("count")+"|")
				return nil
			}, concurrency.WithAbortContext(ctx))
			counted <- err
		}()
	}
	for range sides {
		if err := <-counted; err != nil {
			return err
		}
	}
	found, err := client.Get(ctx, "count")
	if err == nil && len(found.Kvs[0].Value) != sides {
		return fmt.Errorf("counted %s", found.Kvs[0].Value)
	}
	return err
}
