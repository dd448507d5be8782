// Dynamic PIE in C++: exceptions, virtual calls, containers.
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>
volatile int counter;
extern "C" int leaf(int n)
{
    counter = counter + n;
    if (n == 3)
        throw std::runtime_error("three");
    return n * n;
}
struct Shape {
    virtual ~Shape() {}
    virtual int area() const = 0;
};
struct Square : Shape {
    int side;
    explicit Square(int s) : side(s) {}
    int area() const override { return leaf(side); }
};
static int work(int n)
{
    std::map<std::string, int> found;
    std::vector<Shape *> shapes;
    for (int i = 1; i <= n; i++)
        shapes.push_back(new Square(i));
    int sum = 0;
    for (Shape *shape : shapes) {
        try {
            sum += shape->area();
        } catch (const std::exception &e) {
            found[e.what()] = counter;
        }
        delete shape;
    }
    return sum + (int)found.size();
}
int main(int argc, char **argv)
{
    int r = work(4);
    std::printf("sum %d counter %d\n", r, counter);
    return r & 127;
}
