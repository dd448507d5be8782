// Goroutines on many threads, a collector that stops them by signals, nil pointers that are signals, timers.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What other files of the program want run at the end.
var others []func()

//go:noinline
func Work(n int) int {
	sum := 0
	for i := 0; i < n; i++ {
		sum += i * i % 7
	}
	return sum
}

type node struct{ left, right *node }

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{tree(depth - 1), tree(depth - 1)}
}
func (n *node) count() int {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

func goroutines() {
	in, out := make(chan int), make(chan int, 16)
	var workers sync.WaitGroup
	for w := 0; w < 50; w++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for n := range in {
				out <- Work(n)
			}
		}()
	}
	go func() {
		for i := 0; i < 500; i++ {
			in <- i
		}
		close(in)
		workers.Wait()
		close(out)
	}()
	var all []int
	for v := range out {
		all = append(all, v)
	}
	sort.Ints(all)
	fmt.Println("results", len(all), all[0], all[len(all)-1])
}

func preemption() {
	var stop atomic.Bool
	var spun int64
	done := make(chan bool)
	go func() {
		for !stop.Load() {
			spun++
		}
		done <- true
	}()
	runtime.Gosched()
	time.Sleep(20 * time.Millisecond)
	runtime.GC() // stops the world: the spinning goroutine is preempted by a signal
	stop.Store(true)
	<-done
	fmt.Println("spun", spun > 0)
}

func garbage() {
	debug.SetGCPercent(20)
	kept := tree(13)
	var sum int
	var group sync.WaitGroup
	var mutex sync.Mutex
	for g := 0; g < 4; g++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < 10; i++ {
				n := tree(12).count()
				mutex.Lock()
				sum += n
				mutex.Unlock()
			}
		}()
	}
	group.Wait()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	fmt.Println("nodes", sum, kept.count(), "collected", stats.NumGC > 1)
}

func panics() {
	defer func() { fmt.Println("recovered:", recover()) }()
	var n *node
	fmt.Println(n.left)
}

func signals() {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println("signal", <-caught)
	select {
	case <-caught:
	case <-time.After(5 * time.Millisecond):
		fmt.Println("timeout")
	}
}

func main() {
	goroutines()
	preemption()
	garbage()
	panics()
	signals()
	for _, more := range others {
		more()
	}
	os.Exit(7)
}
