// net/http: a server and twenty clients in one process, all on one epoll descriptor.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

func init() { others = append(others, serving) }

func serving() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %x", r.Method, r.URL.Path, sha256.Sum256(body))
	})}
	go server.Serve(listener)
	answers := make([]string, 20)
	var group sync.WaitGroup
	for i := range answers {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			answer, err := http.Post(fmt.Sprintf("http://%s/page/%d", listener.Addr(), i), "text/plain",
				strings.NewReader(strings.Repeat("x", i*5000)))
			if err != nil {
				answers[i] = err.Error()
				return
			}
			text, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			answers[i] = fmt.Sprint(answer.StatusCode, " ", string(text))
		}(i)
	}
	group.Wait()
	for _, answer := range answers {
		fmt.Println(answer)
	}
	server.Close()
	_, err = net.Dial("tcp", listener.Addr().String())
	fmt.Println("refused", err != nil)
}
